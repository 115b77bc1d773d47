// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "client/scout.h"
#include "iothread/range.h"

namespace nbdm {

// Lets what was written since the freeze join the generation, a window at a time, right before the
// window is looked at: what is about to be copied anyway need not be copied again in the next
// round. Windows begin and end where blocks do, and grow where there is little to copy, so that the
// cost of a hole does not grow with its length.
//
// Threads: as Scout.
class RefreezingScout final : public Scout {
  public:
    // Both are powers of two, and no block of a tracker is larger.
    static constexpr std::uint64_t kMinWindowBytes = 64 << 20;
    static constexpr std::uint64_t kMaxWindowBytes = std::uint64_t{16} << 30;

    // `refreeze` is called once for each window, in ascending order. `scout` outlives this.
    RefreezingScout(Scout& scout, std::function<void(Range)> refreeze)
        : scout_(scout), refreeze_(std::move(refreeze)) {}

    [[nodiscard]] std::vector<Extent> extents(Range within) override;

  private:
    Scout& scout_;
    const std::function<void(Range)> refreeze_;
    std::uint64_t window_bytes_ = kMinWindowBytes;
    std::uint64_t refrozen_to_ = 0;
    std::uint64_t dirty_bytes_ = 0;  // in the window
};

}  // namespace nbdm
