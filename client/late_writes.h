// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <vector>

#include "iothread/range.h"

namespace nbdm {

// Writes that connections to a target have left without an answer when they were lost. A server
// that does not fence may get round to them when newer data is there already. Nothing tells when it
// has; so it is given time, and then source and target are compared there.
//
// Threads: one at a time.
class LateWrites {
  public:
    using Clock = std::chrono::steady_clock;
    // A choice, and no bound: a busy server is done by then, and one whose storage stands still
    // does not answer the flushes of later connections either, as a rule. What lands later stays.
    static constexpr std::chrono::seconds kGrace{30};

    // Connections were lost with these writes under way: requests times connections at most.
    void lost(const std::vector<Range>& writes, Clock::time_point now);
    [[nodiscard]] bool none() const noexcept { return ranges_.empty(); }
    // Where they may have landed, by offset and apart, once they have had their time; else nothing.
    [[nodiscard]] std::vector<Range> due(Clock::time_point now) const;
    // What is there is as it should be, and durable.
    void forget() noexcept { ranges_.clear(); }

  private:
    std::vector<Range> ranges_;  // by offset
    Clock::time_point lost_at_;  // the last time
};

}  // namespace nbdm
