// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>

#include "client/job_status.h"
#include "control/log.h"
#include "control/output_thread.h"

namespace nbdm {

enum class ProgressStyle { bar, json, none };

// Shows a job's progress: a line redrawn in place on standard error, or JSON lines on standard
// output. Nothing here waits for whoever reads them but flush().
//
// Threads: one at a time.
class ProgressPrinter {
  public:
    explicit ProgressPrinter(ProgressStyle style);

    // Left out when nobody has read what was shown before.
    void show(const JobSnapshot& snapshot);
    void show_phase_change(const JobSnapshot& snapshot);
    // Leaves the bar's line as this, so that something else can be said.
    void finish(const JobSnapshot& last);
    // A line to standard output. What was shown on standard error may come behind it, but for what
    // was flushed.
    void print(const std::string& line);
    // Waits until all was read, at most `limit` for each of the two. Returns whether it was.
    [[nodiscard]] bool flush(std::chrono::milliseconds limit) const;

  private:
    const ProgressStyle style_;
    const bool terminal_;
    LogThread log_;
    OutputThread output_;
};

// "copying  42 %  1.2 of 2.9 GiB  512 MiB/s ...", at most `width` columns.
[[nodiscard]] std::string format_bar(const JobSnapshot& snapshot, std::size_t width);

}  // namespace nbdm
