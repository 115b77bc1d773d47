// SPDX-License-Identifier: Apache-2.0
#include "client/late_writes.h"

#include "client/differences.h"

namespace nbdm {

void LateWrites::lost(const std::vector<Range>& writes, Clock::time_point now) {
    if (writes.empty()) {
        return;
    }
    lost_at_ = now;
    ranges_.insert(ranges_.end(), writes.begin(), writes.end());
    join(ranges_);
}

std::vector<Range> LateWrites::due(Clock::time_point now) const {
    return now - lost_at_ >= kGrace ? ranges_ : std::vector<Range>{};
}

}  // namespace nbdm
