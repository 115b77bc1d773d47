// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace nbdm {

// What workers have done so far; completions are counted, not requests.
//
// Threads: any. Relaxed: for display and estimates only.
struct WorkCounters {
    std::atomic<std::uint64_t> moved_bytes{0};   // are now at the target as they are at the source
    std::atomic<std::uint64_t> sent_bytes{0};    // as data
    std::atomic<std::uint64_t> zeroed_bytes{0};  // by zeroing requests
};

}  // namespace nbdm
