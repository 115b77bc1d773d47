// SPDX-License-Identifier: Apache-2.0
#include "client/dirty_scout.h"

#include <algorithm>
#include <cstddef>

namespace nbdm {

namespace {

// As far as both are known, in stretches that are alike in both. They begin at one offset.
std::vector<Extent> merge(const std::vector<Extent>& dirtiness,
                          const std::vector<Extent>& allocation) {
    std::vector<Extent> result;
    std::uint64_t at = dirtiness.front().range.offset;
    std::size_t d = 0;
    std::size_t a = 0;
    while (d < dirtiness.size() && a < allocation.size()) {
        const std::uint64_t end = std::min(dirtiness[d].range.end(), allocation[a].range.end());
        result.push_back({.range = Range::from_to(at, end),
                          .zero = allocation[a].zero,
                          .dirty = dirtiness[d].dirty});
        at = end;
        d += dirtiness[d].range.end() == end ? 1 : 0;
        a += allocation[a].range.end() == end ? 1 : 0;
    }
    return result;
}

}  // namespace

std::vector<Extent> DirtyScout::extents(Range within) {
    std::vector<Extent> found = dirtiness_.extents(within);
    const auto all = Range::from_to(found.front().range.offset, found.back().range.end());
    if (holes_ == Holes::everywhere) {
        return merge(found, allocation_.extents(all));
    }
    const auto is_long = [](const Extent& extent) {
        return extent.dirty && extent.range.length >= kMinBytesForHoles;
    };
    if (is_long(found.front())) {
        return merge({found.front()}, allocation_.extents(found.front().range));
    }
    found.erase(std::find_if(found.begin(), found.end(), is_long), found.end());
    for (Extent& extent : found) {
        extent.allocation_known = false;
    }
    return found;
}

}  // namespace nbdm
