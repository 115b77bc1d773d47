// SPDX-License-Identifier: Apache-2.0
#include "client/differences.h"

#include <algorithm>
#include <utility>

namespace nbdm {

void Differences::clear() noexcept {
    ranges_.clear();
    complete_to_ = kNoEnd;
}

void Differences::add(Range range) {
    if (range.offset >= complete_to_) {
        return;
    }
    ranges_.push_back(range);
    if (ranges_.size() < max_ranges_) {
        return;
    }
    join();
    // Half of the room is left then, so that this is seldom done.
    if (ranges_.size() > max_ranges_ / 2) {
        complete_to_ = ranges_[max_ranges_ / 2].offset;
        ranges_.resize(max_ranges_ / 2);
    }
}

Differences::Found Differences::take() {
    join();
    return {std::exchange(ranges_, {}), std::exchange(complete_to_, kNoEnd)};
}

// Those that touch.
void Differences::join() {
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& a, const Range& b) { return a.offset < b.offset; });
    std::size_t count = 0;
    for (const Range& range : ranges_) {
        if (count > 0 && range.offset <= ranges_[count - 1].end()) {
            Range& before = ranges_[count - 1];
            before = Range::from_to(before.offset, std::max(before.end(), range.end()));
        } else {
            ranges_[count++] = range;
        }
    }
    ranges_.resize(count);
}

}  // namespace nbdm
