// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <list>
#include <string>

#include "client/watch/watched_job.h"

namespace nbdm {

// The jobs that somebody looks at: one, or all that run, also those that are started later.
//
// Threads: one at a time. Fails: JobError when there is nothing to watch.
class WatchedJobs {
  public:
    // Empty: all.
    explicit WatchedJobs(const std::string& job);

    // As WatchedJob::look().
    void look(const std::function<bool()>& interrupted);

    [[nodiscard]] bool all_are_over() const;
    // In the order in which they were found; never none, once they were looked at.
    [[nodiscard]] const std::list<WatchedJob>& list() const noexcept { return jobs_; }

  private:
    void search();

    const bool all_;
    std::list<WatchedJob> jobs_;
    WatchedJob::Clock::time_point searched_;
};

}  // namespace nbdm
