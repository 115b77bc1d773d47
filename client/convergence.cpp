// SPDX-License-Identifier: Apache-2.0
#include "client/convergence.h"

#include <algorithm>

namespace nbdm {

namespace {

// Each round shall find no more than this part of what the one before has copied, so that few are
// needed.
constexpr double kWantedShare = 0.7;
// While less than this part of that is dirtied, the writers may go faster.
constexpr double kEasyShare = 0.7;
constexpr Convergence::Delay kFirstDelay{100};
constexpr double kMaxGrowth = 1.5;
constexpr double kRelief = 0.9;

}  // namespace

Convergence::Delay Convergence::look(const Seen& seen) noexcept {
    losing_ = false;
    if (seen.copy_bytes_per_s <= 0) {
        return delay_;
    }
    const double load = seen.dirty_bytes_per_s / (kWantedShare * seen.copy_bytes_per_s);
    losing_ = !seen.fits && load * kWantedShare > 1;
    const auto scaled = [&](double factor) {
        return Delay(static_cast<Delay::rep>(static_cast<double>(delay_.count()) * factor));
    };
    if (!seen.fits && load > 1) {
        delay_ = std::min(std::max(scaled(std::min(load, kMaxGrowth)), kFirstDelay), kMaxDelay);
    } else if (seen.fits ? !seen.cutover_wanted : load < kEasyShare) {
        delay_ = scaled(kRelief);
        delay_ = delay_ < kFirstDelay ? Delay(0) : delay_;
    }
    return delay_;
}

}  // namespace nbdm
