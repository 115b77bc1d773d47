// SPDX-License-Identifier: Apache-2.0
#include "client/differences.h"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using Ranges = std::vector<Range>;

constexpr std::uint64_t kBlock = 4096;
constexpr std::size_t kMaxRanges = 64;

TEST(Differences, AreInTheDisksOrderAndThoseThatTouchAreOne) {
    Differences differences;
    differences.add({8 * kBlock, kBlock});
    differences.add({kBlock, kBlock});
    differences.add({0, kBlock});
    differences.add({9 * kBlock, kBlock});
    const Differences::Found found = differences.take();
    EXPECT_EQ(found.ranges, (Ranges{{0, 2 * kBlock}, {8 * kBlock, 2 * kBlock}}));
    EXPECT_EQ(found.complete_to, Differences::kNoEnd);
    EXPECT_EQ(differences.take().ranges, Ranges{});
}

TEST(Differences, OneThatWasFoundTwiceIsOne) {
    Differences differences;
    differences.add({0, 4 * kBlock});
    differences.add({kBlock, kBlock});
    EXPECT_EQ(differences.take().ranges, (Ranges{{0, 4 * kBlock}}));
}

TEST(Differences, OfMoreThanAreKeptTheFirstAreAndItIsSaidHowFarTheyGo) {
    constexpr std::uint64_t kCount = 10 * kMaxRanges;
    Differences differences(kMaxRanges);
    // At every other block, in an order like that of several workers.
    for (std::uint64_t i = 0; i < kCount; ++i) {
        differences.add({2 * (i * 7 % kCount) * kBlock, kBlock});
    }
    const Differences::Found found = differences.take();
    ASSERT_GE(found.ranges.size(), kMaxRanges / 2);
    EXPECT_LE(found.ranges.size(), kMaxRanges);
    // All up to there, and none from there on.
    ASSERT_EQ(found.complete_to, 2 * found.ranges.size() * kBlock);
    for (std::uint64_t i = 0; i < found.ranges.size(); ++i) {
        EXPECT_EQ(found.ranges[i], (Range{2 * i * kBlock, kBlock}));
    }
}

TEST(Differences, ThatFillTheRoomSideBySideAreAllKept) {
    Differences differences(kMaxRanges);
    for (std::uint64_t i = 0; i < 10 * kMaxRanges; ++i) {
        differences.add({i * kBlock, kBlock});
    }
    const Differences::Found found = differences.take();
    EXPECT_EQ(found.ranges, (Ranges{{0, 10 * kMaxRanges * kBlock}}));
    EXPECT_EQ(found.complete_to, Differences::kNoEnd);
}

TEST(Differences, AfterTooManyAreCompleteAgain) {
    for (const bool taken : {false, true}) {
        Differences differences(kMaxRanges);
        for (std::uint64_t i = 0; i < 2 * kMaxRanges; ++i) {
            differences.add({2 * i * kBlock, kBlock});
        }
        if (taken) {
            EXPECT_NE(differences.take().complete_to, Differences::kNoEnd);
        } else {
            differences.clear();
        }
        differences.add({0, kBlock});
        const Differences::Found found = differences.take();
        EXPECT_EQ(found.ranges, (Ranges{{0, kBlock}}));
        EXPECT_EQ(found.complete_to, Differences::kNoEnd);
    }
}

}  // namespace
}  // namespace nbdm
