// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "client/job_status.h"

namespace nbdm {

enum class ProgressStyle { bar, json, none };

// Shows a job's progress: a line redrawn in place on standard error, or JSON lines on standard
// output.
//
// Threads: one at a time.
class ProgressPrinter {
  public:
    explicit ProgressPrinter(ProgressStyle style);
    ProgressPrinter(const ProgressPrinter&) = delete;
    ProgressPrinter& operator=(const ProgressPrinter&) = delete;
    ~ProgressPrinter();  // the last bar stays

    void show(const JobSnapshot& snapshot);
    void show_phase_change(const JobSnapshot& snapshot);
    // Leaves the bar's line, so that something else can be said.
    void finish_line();

  private:
    const ProgressStyle style_;
    const bool terminal_;
};

// "copying  42 %  1.2 of 2.9 GiB  512 MiB/s ...", at most `width` columns.
[[nodiscard]] std::string format_bar(const JobSnapshot& snapshot, std::size_t width);

}  // namespace nbdm
