// SPDX-License-Identifier: Apache-2.0
#include "client/differences.h"

#include <algorithm>
#include <utility>

#include "control/size.h"

namespace nbdm {

void join(std::vector<Range>& ranges) {
    std::sort(ranges.begin(), ranges.end(),
              [](const Range& a, const Range& b) { return a.offset < b.offset; });
    std::size_t count = 0;
    for (const Range& range : ranges) {
        if (count > 0 && range.offset <= ranges[count - 1].end()) {
            Range& before = ranges[count - 1];
            before = Range::from_to(before.offset, std::max(before.end(), range.end()));
        } else {
            ranges[count++] = range;
        }
    }
    ranges.resize(count);
}

std::string describe_first(const std::vector<Range>& differences) {
    constexpr std::size_t kMaxNamed = 16;
    std::string text;
    for (std::size_t i = 0; i < std::min(differences.size(), kMaxNamed); ++i) {
        const Range& range = differences[i];
        text += (text.empty() ? "" : "\n") + std::string("bytes ") + std::to_string(range.offset) +
                "-" + std::to_string(range.end() - 1) + " (" +
                format_size(static_cast<double>(range.length)) + ") differ";
    }
    return text;
}

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
    join(ranges_);
    // Half of the room is left then, so that this is seldom done.
    if (ranges_.size() > max_ranges_ / 2) {
        complete_to_ = ranges_[max_ranges_ / 2].offset;
        ranges_.resize(max_ranges_ / 2);
    }
}

Differences::Found Differences::take() {
    join(ranges_);
    return {std::exchange(ranges_, {}), std::exchange(complete_to_, kNoEnd)};
}

}  // namespace nbdm
