// SPDX-License-Identifier: Apache-2.0
#include "client/lost_connections.h"

#include <utility>

namespace nbdm {

void LostConnections::lost(std::uint64_t durable_steps, Clock::time_point now) noexcept {
    const bool durable = durable_steps != std::exchange(durable_steps_, durable_steps);
    const bool first = !since_;
    const bool soon = now < connected_at_ + limit_;
    if (first || durable || !soon) {
        since_ = now;
    }
    fruitless_ = first || durable ? 0 : fruitless_ + 1;
}

void LostConnections::round_ended() noexcept {
    since_.reset();
}

std::optional<std::string> LostConnections::given_up(Clock::time_point attempt) const {
    if (fruitless_ >= kMaxFruitless) {
        return "given up after " + std::to_string(fruitless_) +
               " connections that have made nothing durable";
    }
    if (since_ && attempt > *since_ + limit_) {
        return "given up after " + std::to_string(limit_.count()) + " s";
    }
    return std::nullopt;
}

}  // namespace nbdm
