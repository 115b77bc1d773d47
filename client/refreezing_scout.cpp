// SPDX-License-Identifier: Apache-2.0
#include "client/refreezing_scout.h"

#include <algorithm>

namespace nbdm {

namespace {

// A window in which less is to be copied could have been larger.
constexpr std::uint64_t kLittleBytes = 16 << 20;

}  // namespace

std::vector<Extent> RefreezingScout::extents(Range within) {
    if (within.offset >= refrozen_to_) {
        if (refrozen_to_ > 0) {
            window_bytes_ = dirty_bytes_ < kLittleBytes
                                ? std::min(2 * window_bytes_, kMaxWindowBytes)
                                : kMinWindowBytes;
        }
        dirty_bytes_ = 0;
        const std::uint64_t end =
            std::min(align_up(within.offset + 1, window_bytes_), within.end());
        refreeze_(Range::from_to(within.offset, end));
        refrozen_to_ = end;
    }
    std::vector<Extent> found =
        scout_.extents(Range::from_to(within.offset, std::min(refrozen_to_, within.end())));
    for (const Extent& extent : found) {
        dirty_bytes_ += extent.dirty && !extent.zero() ? extent.range.length : 0;
    }
    return found;
}

}  // namespace nbdm
