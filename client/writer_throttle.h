// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "client/convergence.h"
#include "client/job_status.h"

namespace nbdm {

// Slows a mirror's writers down as far as it takes to get ready, and says so in the job's status;
// also when that is not enough, or not allowed.
//
// Threads: one at a time.
class WriterThrottle {
  public:
    // Asks the source to delay each write, for as long as `lease` lasts: a mirror that dies slows
    // nobody down for long. May throw NoAnswer. A delay of 0 ends it.
    using Ask = std::function<void(Convergence::Delay delay, std::chrono::milliseconds lease)>;

    WriterThrottle(bool allowed, JobStatus& status, Ask ask)
        : allowed_(allowed), status_(status), ask_(std::move(ask)) {}

    // Call once in each Convergence::kInterval while the job catches up; otherwise stop().
    void look(const Convergence::Seen& seen);
    void stop() noexcept;

  private:
    void say_that_it_does_not_converge(const Convergence::Seen& seen);
    void take_back_what_was_said();

    const bool allowed_;
    JobStatus& status_;
    const Ask ask_;
    Convergence convergence_;
    bool throttled_ = false;
    std::string said_;  // in the status; empty: nothing
};

}  // namespace nbdm
