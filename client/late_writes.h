// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <vector>

#include "client/differences.h"
#include "iothread/range.h"

namespace nbdm {

// Writes that connections to a target have left without an answer when they were lost. A server
// that does not fence may get round to them when newer data is there already. Nothing tells when it
// has; so it is given time, and then the target is compared there.
//
// Threads: one at a time.
class LateWrites {
  public:
    using Clock = std::chrono::steady_clock;
    // What a server does not do within this it would not do before its storage answers, for which
    // the flushes that come after it have to wait as well.
    static constexpr std::chrono::seconds kSettled{30};

    // Connections were lost, with these writes under way.
    void lost(const std::vector<Range>& writes, Clock::time_point now);
    [[nodiscard]] bool none() const noexcept { return ranges_.empty(); }
    // Where they may have landed, in the disk's order, once they have had their time; else nothing.
    // May go beyond the end of the disk.
    [[nodiscard]] std::vector<Range> settled(Clock::time_point now) const;
    // What is there is as it should be, and durable.
    void settle() noexcept { ranges_.clear(); }

  private:
    std::vector<Range> ranges_;
    Clock::time_point lost_at_;  // the last time
};

}  // namespace nbdm
