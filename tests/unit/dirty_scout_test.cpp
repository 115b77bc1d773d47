// SPDX-License-Identifier: Apache-2.0
#include "client/dirty_scout.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using Holes = DirtyScout::Holes;

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kDisk = 16 * kMiB;
constexpr std::uint64_t kBlock = 65536;

// Tells a disk of known extents, as many at a time, and what was asked for.
class FakeScout final : public Scout {
  public:
    [[nodiscard]] std::vector<Extent> extents(Range within) override {
        asked.push_back(within);
        std::vector<Extent> found;
        for (const Extent& extent : disk) {
            const Range part = Range::from_to(std::max(extent.range.offset, within.offset),
                                              std::min(extent.range.end(), within.end()));
            if (extent.range.offset < within.end() && extent.range.end() > within.offset &&
                found.size() < most) {
                found.push_back(extent);
                found.back().range = part;
            }
        }
        return found;
    }

    std::vector<Extent> disk;
    std::size_t most = SIZE_MAX;
    std::vector<Range> asked;
};

class DirtyScoutTest : public testing::Test {
  protected:
    DirtyScoutTest() {
        // Dirty: a block at 1 MiB, and from 4 to 8 MiB.
        dirtiness_.disk = {{.range = {0, kMiB}, .dirty = false},
                           {.range = {kMiB, kBlock}, .dirty = true},
                           {.range = Range::from_to(kMiB + kBlock, 4 * kMiB), .dirty = false},
                           {.range = {4 * kMiB, 4 * kMiB}, .dirty = true},
                           {.range = Range::from_to(8 * kMiB, kDisk), .dirty = false}};
        // A hole from 6 to 12 MiB.
        allocation_.disk = {{.range = {0, 6 * kMiB}},
                            {.range = {6 * kMiB, 6 * kMiB}, .allocation = Allocation::zero},
                            {.range = Range::from_to(12 * kMiB, kDisk)}};
    }

    // As a pass does: all of the disk.
    std::vector<Extent> go_through(Holes holes) {
        DirtyScout scout(dirtiness_, allocation_, holes);
        std::vector<Extent> all;
        for (std::uint64_t at = 0; at < kDisk;) {
            for (const Extent& extent : scout.extents(Range::from_to(at, kDisk))) {
                EXPECT_EQ(extent.range.offset, at);
                at = extent.range.end();
                all.push_back(extent);
            }
        }
        return all;
    }

    FakeScout dirtiness_;
    FakeScout allocation_;
};

TEST_F(DirtyScoutTest, HolesAreAskedForWhereALongStretchIsDirty) {
    const std::vector<Extent> all = go_through(Holes::where_dirty);
    ASSERT_EQ(allocation_.asked.size(), 1U);
    EXPECT_EQ(allocation_.asked.front(), (Range{4 * kMiB, 4 * kMiB}));
    std::uint64_t dirty_zeroes = 0;
    for (const Extent& extent : all) {
        const bool is_long = extent.range.offset >= 4 * kMiB && extent.range.end() <= 8 * kMiB;
        EXPECT_EQ(extent.allocation != Allocation::unknown, is_long) << extent.range.offset;
        EXPECT_EQ(extent.dirty, is_long || extent.range.offset == kMiB) << extent.range.offset;
        dirty_zeroes += extent.zero() ? extent.range.length : 0;
    }
    EXPECT_EQ(dirty_zeroes, 2 * kMiB);
    EXPECT_EQ(dirtiness_.asked.size(), 1U);
}

TEST_F(DirtyScoutTest, AStretchIsLongFromAMebibyteOn) {
    for (const std::uint64_t length : {kMiB, kMiB - 512}) {
        dirtiness_.disk = {{.range = {0, length}, .dirty = true},
                           {.range = Range::from_to(length, kDisk), .dirty = false}};
        EXPECT_EQ(go_through(Holes::where_dirty).front().allocation != Allocation::unknown,
                  length == kMiB);
    }
}

TEST_F(DirtyScoutTest, WhatIsAskedForElsewhereIsNotAnsweredFromBefore) {
    DirtyScout scout(dirtiness_, allocation_, Holes::where_dirty);
    EXPECT_EQ(scout.extents({0, kDisk}).back().range.end(), 4 * kMiB);
    const std::vector<Extent> found = scout.extents({5 * kMiB, 2 * kMiB});
    EXPECT_EQ(found.front().range, (Range{5 * kMiB, kMiB}));
    EXPECT_EQ(scout.extents({6 * kMiB, kMiB}).front().range, (Range{6 * kMiB, kMiB}));
    EXPECT_EQ(scout.extents({7 * kMiB, kBlock}).front().range, (Range{7 * kMiB, kBlock}));
}

TEST_F(DirtyScoutTest, BothAreToldOfAllTheDisk) {
    for (const std::size_t most : {std::size_t{1}, std::size_t{2}, SIZE_MAX}) {
        dirtiness_.most = most;
        allocation_.most = most == 2 ? 1 : most;
        std::uint64_t zeroes = 0;
        std::uint64_t dirty = 0;
        for (const Extent& extent : go_through(Holes::everywhere)) {
            EXPECT_NE(extent.allocation, Allocation::unknown);
            zeroes += extent.zero() ? extent.range.length : 0;
            dirty += extent.dirty ? extent.range.length : 0;
        }
        EXPECT_EQ(zeroes, 6 * kMiB) << most;
        EXPECT_EQ(dirty, 4 * kMiB + kBlock) << most;
    }
}

TEST_F(DirtyScoutTest, ALongStretchWhoseAnswersStopShortIsToldInFull) {
    allocation_.disk = {{.range = {0, 5 * kMiB}, .allocation = Allocation::zero},
                        {.range = {5 * kMiB, kMiB}},
                        {.range = Range::from_to(6 * kMiB, kDisk), .allocation = Allocation::zero}};
    allocation_.most = 1;
    std::uint64_t zeroes = 0;
    for (const Extent& extent : go_through(Holes::where_dirty)) {
        zeroes += extent.dirty && extent.zero() ? extent.range.length : 0;
    }
    EXPECT_EQ(zeroes, 3 * kMiB);
}

}  // namespace
}  // namespace nbdm
