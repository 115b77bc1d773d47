// SPDX-License-Identifier: Apache-2.0
#include "client/refreezing_scout.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kDisk = (std::uint64_t{64} << 30) + 512;

// Tells at most a stretch at a time, and what was asked for.
class FakeScout final : public Scout {
  public:
    [[nodiscard]] std::vector<Extent> extents(Range within) override {
        asked.push_back(within);
        return {{.range = within.first(stretch_bytes),
                 .allocation = zero ? Allocation::zero : Allocation::data,
                 .dirty = dirty}};
    }

    std::vector<Range> asked;
    std::uint64_t stretch_bytes = 16 * kMiB;
    bool zero = false;
    bool dirty = true;
};

class RefreezingScoutTest : public testing::Test {
  protected:
    // As a pass does.
    void go_through(std::uint64_t from, std::uint64_t to) {
        while (from < to) {
            const std::size_t before = refrozen_.size();
            for (const Extent& extent : scout_.extents(Range::from_to(from, kDisk))) {
                EXPECT_EQ(extent.range.offset, from);
                from = extent.range.end();
            }
            EXPECT_LE(refrozen_.size(), before + 1);
            // Nothing is looked at that was not frozen anew before.
            EXPECT_LE(from, refrozen_.back().end());
        }
    }

    FakeScout fake_;
    std::vector<Range> refrozen_;
    RefreezingScout scout_{fake_, [this](Range window) { refrozen_.push_back(window); }};
};

TEST_F(RefreezingScoutTest, EachWindowIsFrozenOnceRightBeforeItIsLookedAt) {
    go_through(0, 256 * kMiB);
    ASSERT_EQ(refrozen_.size(), 4U);
    for (std::size_t i = 0; i < refrozen_.size(); ++i) {
        EXPECT_EQ(refrozen_[i].offset, i * RefreezingScout::kMinWindowBytes);
        EXPECT_EQ(refrozen_[i].length, RefreezingScout::kMinWindowBytes);
    }
    EXPECT_EQ(fake_.asked.size(), 16U);
}

TEST_F(RefreezingScoutTest, HolesAreGoneThroughInFewWindowsWithoutGaps) {
    fake_.zero = true;
    fake_.stretch_bytes = kDisk;
    go_through(0, kDisk);
    EXPECT_LT(refrozen_.size(), 20U);
    std::uint64_t at = 0;
    for (const Range& window : refrozen_) {
        EXPECT_EQ(window.offset, at);
        EXPECT_LE(window.length, RefreezingScout::kMaxWindowBytes);
        at = window.end();
    }
    EXPECT_EQ(at, kDisk);
}

TEST_F(RefreezingScoutTest, WhereThereIsMuchToCopyWindowsAreSmallAgain) {
    fake_.dirty = false;
    go_through(0, 1024 * kMiB);
    EXPECT_GT(refrozen_.back().length, RefreezingScout::kMinWindowBytes);
    const std::uint64_t end = refrozen_.back().end();
    fake_.dirty = true;
    go_through(end, end + 8 * 1024 * kMiB);
    EXPECT_EQ(refrozen_.back().length, RefreezingScout::kMinWindowBytes);
}

}  // namespace
}  // namespace nbdm
