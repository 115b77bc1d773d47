// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "client/cancellation.h"
#include "client/engine.h"
#include "client/job_status.h"
#include "client/location.h"
#include "iothread/range.h"

namespace nbdm {

struct CopyOptions {
    Location source;
    Location target;
    EngineOptions engine;
    bool create = false;          // make the target file when it is missing
    bool target_is_zero = false;  // the caller vouches for it
    bool verify = false;          // compare afterwards
    bool delta = false;           // read the target too, and write only what differs
};

// A copy of something that is not being written; durable at the target when it returns.
//
// Threads: a thread of its own; `status` is read by others meanwhile. Throws JobError,
// std::system_error or Cancelled. Returns a line to end with.
[[nodiscard]] std::string copy_disk(const CopyOptions& options, JobStatus& status, Pace& pace,
                                    const Cancellation& cancellation);

// Where two disks differ, over the source's size: ascending, the first ones, as many as
// Differences keeps. Empty: equal.
[[nodiscard]] std::vector<Range> compare_disks(const CopyOptions& options, JobStatus& status,
                                               Pace& pace, const Cancellation& cancellation);
// What is known of the target's zeroes before anything is written to it.
[[nodiscard]] TargetZeroes known_zeroes(const Side& target, const Cancellation& cancellation);

}  // namespace nbdm
