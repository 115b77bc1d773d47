// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "client/cancellation.h"
#include "client/nbd_handle.h"
#include "iothread/range.h"

namespace nbdm {

// A stretch of a disk with one status in one metadata context.
struct StatusRun {
    Range range;
    std::uint32_t status = 0;
};

// What a server says of a stretch, by metadata context; of one that it does not know, nothing.
// Ascending and without gaps, from the start of what was asked on.
using BlockStatuses = std::map<std::string, std::vector<StatusRun>>;

// Asks for the start of `within` (not empty), as much of it as fits into one question; no answer
// reaches past its end, and any may stop short of it. Throws JobError, ConnectionLost or Cancelled.
//
// Threads: the handle's.
[[nodiscard]] BlockStatuses ask_block_status(NbdHandle& handle, Range within,
                                             const Cancellation& cancellation);

}  // namespace nbdm
