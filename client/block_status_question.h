// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
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

struct BlockStatusQuestion {
    Range within;      // not empty
    const char* what;  // for messages: "extents"
    // A server may have to walk the metadata of a huge file.
    std::chrono::milliseconds limit{120'000};
};

// Asks for the start of a range, as much of it as fits into one question; no answer reaches past
// its end, and any may stop short of it. Throws JobError, ConnectionLost or Cancelled.
//
// Threads: the handle's.
[[nodiscard]] BlockStatuses ask_block_status(NbdHandle& handle, const BlockStatusQuestion& question,
                                             const Cancellation& cancellation);

}  // namespace nbdm
