// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace nbdm {

// Asks the scheduler for the longest time slices for the calling thread: it gets as much of a CPU
// as before, in fewer and longer turns, and a thread that wakes up meanwhile goes first. For the
// copying of disks beside the guests that use them (docs/performance.md). A wish; Linux before 6.12
// has no slices of a thread's own, and a thread that the operator has given another policy is left
// alone.
//
// Threads: any, for itself.
void take_long_turns() noexcept;

}  // namespace nbdm
