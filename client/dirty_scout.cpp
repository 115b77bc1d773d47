// SPDX-License-Identifier: Apache-2.0
#include "client/dirty_scout.h"

#include <algorithm>
#include <cstddef>

namespace nbdm {

namespace {

// Stretches that are alike in both, up to where the shorter answer ends. Both begin at one offset.
std::vector<Extent> merge(const std::vector<Extent>& dirtiness,
                          const std::vector<Extent>& allocation) {
    std::vector<Extent> result;
    std::uint64_t at = dirtiness.front().range.offset;
    std::size_t d = 0;
    std::size_t a = 0;
    while (d < dirtiness.size() && a < allocation.size()) {
        const std::uint64_t end = std::min(dirtiness[d].range.end(), allocation[a].range.end());
        result.push_back({.range = Range::from_to(at, end),
                          .allocation = allocation[a].allocation,
                          .dirty = dirtiness[d].dirty});
        at = end;
        d += dirtiness[d].range.end() == end ? 1 : 0;
        a += allocation[a].range.end() == end ? 1 : 0;
    }
    return result;
}

}  // namespace

std::vector<Extent> DirtyScout::extents(Range within) {
    if (holes_ == Holes::everywhere) {
        const std::vector<Extent> found = dirtiness_.extents(within);
        const Range all = Range::from_to(within.offset, found.back().range.end());
        return merge(found, allocation_.extents(all));
    }
    if (ahead_.empty() || ahead_.front().range.offset != within.offset ||
        ahead_.back().range.end() > within.end()) {
        const std::vector<Extent> found = dirtiness_.extents(within);
        ahead_.assign(found.begin(), found.end());
    }
    const auto is_long = [](const Extent& extent) {
        return extent.dirty && extent.range.length >= kMinBytesForHoles;
    };
    if (is_long(ahead_.front())) {
        Extent& stretch = ahead_.front();
        const std::vector<Extent> result = merge({stretch}, allocation_.extents(stretch.range));
        stretch.range = Range::from_to(result.back().range.end(), stretch.range.end());
        if (stretch.range.empty()) {
            ahead_.pop_front();
        }
        return result;
    }
    const auto end = std::find_if(ahead_.begin(), ahead_.end(), is_long);
    std::vector<Extent> result(ahead_.begin(), end);
    ahead_.erase(ahead_.begin(), end);
    for (Extent& extent : result) {
        extent.allocation = Allocation::unknown;
    }
    return result;
}

}  // namespace nbdm
