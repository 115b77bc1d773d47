// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <event2/event.h>

#include "client/cancellation.h"
#include "client/job_limits.h"
#include "client/job_status.h"
#include "client/progress_printer.h"
#include "control/event.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// Runs one job: the work on a thread of its own, and in the calling thread a loop with signals
// (the first SIGINT or SIGTERM cancels, the second ends the program at once), progress, and
// whatever else is put on the loop. None of it waits for whoever reads what the job says.
//
// Threads: one at a time.
class JobRunner {
  public:
    JobRunner(std::string job, std::vector<DiskEnds> disks, ProgressStyle style);

    [[nodiscard]] event_base* base() const noexcept { return base_.get(); }
    [[nodiscard]] JobStatus& status() noexcept { return status_; }
    [[nodiscard]] JobLimits& limits() noexcept { return limits_; }
    [[nodiscard]] Cancellation& cancellation() noexcept { return cancellation_; }

    // Called in the loop at each change of phase; may be empty.
    void on_phase_change(std::function<void(const JobSnapshot&)> call) {
        phase_changed_ = std::move(call);
    }

    struct Result {
        Phase phase = Phase::failed;  // done, failed or cancelled
        std::string line;             // what `work` returned, or what went wrong
    };
    // Returns when `work` has returned or thrown.
    [[nodiscard]] Result run(const std::function<std::string()>& work);

    // After it: returns when all that was said has been read, or when a signal says that nobody
    // will.
    void wait_for_readers();
    // Lines to standard output, or to standard error, which are waited for as well.
    void print(const std::string& line);
    void print_error(const std::string& line);

  private:
    void signalled();
    void show();
    void watch(int fd, short events, event_callback_fn call);

    const EventBasePointer base_;
    const UniqueFd changed_fd_;  // the phase has changed, or the work has ended
    Cancellation cancellation_;
    JobStatus status_;
    JobLimits limits_{status_};
    ProgressPrinter printer_;
    std::function<void(const JobSnapshot&)> phase_changed_;
    std::vector<EventPointer> events_;
    std::atomic<bool> ended_{false};
    bool signalled_since_ = false;
};

}  // namespace nbdm
