// SPDX-License-Identifier: Apache-2.0
#include "client/late_writes.h"

#include <utility>

namespace nbdm {

void LateWrites::lost(const std::vector<Range>& writes, Clock::time_point now) {
    if (writes.empty()) {
        return;
    }
    lost_at_ = now;
    Differences all;
    ranges_.insert(ranges_.end(), writes.begin(), writes.end());
    for (const Range& range : ranges_) {
        all.add(range);
    }
    Differences::Found found = all.take();
    if (found.complete_to != Differences::kNoEnd) {
        found.ranges.push_back(Range::from_to(found.complete_to, Differences::kNoEnd));
    }
    ranges_ = std::move(found.ranges);
}

std::vector<Range> LateWrites::settled(Clock::time_point now) const {
    return now - lost_at_ >= kSettled ? ranges_ : std::vector<Range>{};
}

}  // namespace nbdm
