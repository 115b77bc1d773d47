// SPDX-License-Identifier: Apache-2.0
#include "client/late_writes.h"

#include <gtest/gtest.h>

#include "client/scout.h"

namespace nbdm {

namespace {

using std::chrono::seconds;

const LateWrites::Clock::time_point kBegin{seconds(1000)};

}  // namespace

TEST(LateWrites, HaveTheirTimeFromTheLastLossOn) {
    LateWrites late;
    EXPECT_TRUE(late.none());
    EXPECT_TRUE(late.settled(kBegin).empty());
    late.lost({{4096, 4096}}, kBegin);
    EXPECT_FALSE(late.none());
    EXPECT_TRUE(late.settled(kBegin + LateWrites::kSettled - seconds(1)).empty());
    late.lost({{0, 4096}, {65536, 512}}, kBegin + seconds(10));
    EXPECT_TRUE(late.settled(kBegin + LateWrites::kSettled).empty());
    // A connection with nothing under way adds nothing.
    late.lost({}, kBegin + seconds(20));
    EXPECT_EQ(late.settled(kBegin + seconds(10) + LateWrites::kSettled),
              (std::vector<Range>{{0, 8192}, {65536, 512}}));
    EXPECT_FALSE(late.none());
    late.settle();
    EXPECT_TRUE(late.none());
}

TEST(LateWrites, MoreOfThemThanAreKeptCoverTheRestOfTheDisk) {
    LateWrites late;
    std::vector<Range> scattered;
    for (std::uint64_t i = 0; i <= Differences::kMaxRanges; ++i) {
        scattered.push_back({i * 8192, 4096});
    }
    late.lost(scattered, kBegin);
    const std::vector<Range> kept = late.settled(kBegin + LateWrites::kSettled);
    EXPECT_LT(kept.size(), scattered.size());
    EXPECT_GE(kept.back().end(), scattered.back().end());
    const std::uint64_t size = scattered.back().end() + 1;
    EXPECT_EQ(dirty_extents(kept, size).back().range.end(), size);
}

TEST(DirtyExtents, CoverTheDiskAndNothingMore) {
    const std::vector<Extent> extents = dirty_extents({{0, 512}, {4096, 512}, {4608, 9999}}, 8192);
    std::uint64_t at = 0;
    std::uint64_t dirty_bytes = 0;
    for (const Extent& extent : extents) {
        EXPECT_EQ(extent.range.offset, at);
        EXPECT_FALSE(extent.allocation_known);
        at = extent.range.end();
        dirty_bytes += extent.dirty ? extent.range.length : 0;
    }
    EXPECT_EQ(at, 8192U);
    EXPECT_EQ(dirty_bytes, 512U + 4096U);
}

}  // namespace nbdm
