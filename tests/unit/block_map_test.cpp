// SPDX-License-Identifier: Apache-2.0
#include "client/block_map.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using namespace std::chrono_literals;
using Found = BlockMap::Found;
using End = BlockMap::End;

constexpr std::uint64_t kCell = 1 << 20;
constexpr std::uint64_t kSize = BlockMap::kMaxCells * kCell;

class BlockMapTest : public testing::Test {
  protected:
    BlockMapTest() { map_.start(kSize); }

    [[nodiscard]] BlockMap::Cell cell(std::size_t index) const {
        const BlockMap::Picture picture = map_.look(now_);
        return picture.cells.at(index);
    }

    BlockMap map_;
    BlockMap::Clock::time_point now_{1000s};
};

TEST_F(BlockMapTest, AtTheStartAllIsToDo) {
    const BlockMap::Picture picture = map_.look(now_);
    ASSERT_EQ(picture.cells.size(), BlockMap::kMaxCells);
    for (const BlockMap::Cell& each : picture.cells) {
        EXPECT_EQ(each.to_do, kCell);
        EXPECT_EQ(each.moved + each.hole + each.dirty + each.in_flight, 0U);
    }
}

TEST_F(BlockMapTest, APieceIsInFlightUntilItHasEnded) {
    map_.begun({0, 1000});
    EXPECT_EQ(cell(0).in_flight, 1000U);
    EXPECT_EQ(cell(0).to_do, kCell - 1000);
    map_.ended({0, 1000}, End::moved);
    EXPECT_EQ(cell(0).in_flight, 0U);
    EXPECT_EQ(cell(0).moved, 1000U);
    map_.begun({1000, 1000});
    map_.ended({1000, 1000}, End::failed);
    EXPECT_EQ(cell(0).to_do, kCell - 1000) << "what has failed waits again";
    map_.begun({1000, 1000});
    map_.ended({1000, 1000}, End::zeroed);
    EXPECT_EQ(cell(0).hole, 1000U);
}

TEST_F(BlockMapTest, APieceCountsInEachCellThatItTouches) {
    map_.begun({kCell - 100, kCell + 300});
    EXPECT_EQ(cell(0).in_flight, 100U);
    EXPECT_EQ(cell(1).in_flight, kCell);
    EXPECT_EQ(cell(2).in_flight, 200U);
}

TEST_F(BlockMapTest, ASkippedHoleIsAHole) {
    map_.skipped({kCell, 3 * kCell});
    EXPECT_EQ(cell(0).hole, 0U);
    EXPECT_EQ(cell(1).hole, kCell);
    EXPECT_EQ(cell(3).hole, kCell);
    EXPECT_EQ(cell(4).hole, 0U);
}

TEST_F(BlockMapTest, WhatIsFoundOnceAllIsMovedIsDirty) {
    map_.all_moved();
    EXPECT_EQ(cell(0).moved, kCell);
    map_.found({0, 2 * kCell}, Found::data, now_);
    map_.found({2 * kCell, 5000}, Found::wanted, now_);
    map_.found(Range::from_to(2 * kCell + 5000, kSize), Found::data, now_);
    EXPECT_EQ(cell(1).dirty, 0U);
    EXPECT_EQ(cell(2).dirty, 5000U);
    EXPECT_EQ(cell(2).moved, kCell - 5000);
    EXPECT_EQ(cell(2).to_do, 0U);
    now_ += 3s;
    EXPECT_EQ(cell(2).written_ago, 3s);
    EXPECT_EQ(cell(1).written_ago, BlockMap::Clock::duration::max());
}

TEST_F(BlockMapTest, WhatIsFoundInTheFirstRoundWasNotWrittenAgain) {
    map_.found({0, kSize}, Found::wanted, now_);
    EXPECT_EQ(cell(0).to_do, kCell);
    EXPECT_EQ(cell(0).written_ago, BlockMap::Clock::duration::max());
}

TEST_F(BlockMapTest, ASweepPutsRightWhatAFailedOneHasLeft) {
    map_.found({0, kSize}, Found::wanted, now_);
    map_.begun({0, kCell});
    map_.ended({0, kCell}, End::failed);
    // The next one finds half of the first cell done, and the second one to be a hole.
    map_.found({0, kCell / 2}, Found::wanted, now_);
    map_.found(Range::from_to(kCell / 2, kCell), Found::data, now_);
    map_.found(Range::from_to(kCell, 2 * kCell), Found::hole, now_);
    map_.found(Range::from_to(2 * kCell, kSize), Found::data, now_);
    EXPECT_EQ(cell(0).to_do, kCell / 2);
    EXPECT_EQ(cell(0).moved, kCell / 2);
    EXPECT_EQ(cell(1).hole, kCell);
    EXPECT_EQ(cell(2).moved, kCell);
}

TEST_F(BlockMapTest, ASweepThatDoesNotLookForHolesLeavesThem) {
    map_.found({0, kSize}, Found::wanted, now_);
    map_.skipped({0, kCell / 2});
    map_.all_moved();
    for (int sweep = 0; sweep < 2; ++sweep) {
        map_.found({0, kCell - 4096}, Found::neither_known, now_);
        map_.found({kCell - 4096, 4096}, Found::wanted, now_);
        map_.found(Range::from_to(kCell, kSize), Found::neither_known, now_);
        EXPECT_EQ(cell(0).hole, kCell / 2);
        EXPECT_EQ(cell(0).dirty, 4096U);
    }
    map_.found({0, 4096}, Found::wanted, now_);
    map_.found({4096, 4096}, Found::hole, now_);
    map_.found(Range::from_to(8192, kSize), Found::data, now_);
    EXPECT_EQ(cell(0).hole, 4096U);
}

TEST_F(BlockMapTest, AHoleThatIsWrittenIsAHoleNoMore) {
    map_.skipped({0, kCell});
    map_.all_moved();
    EXPECT_EQ(cell(0).hole, kCell);
    map_.found({0, kSize}, Found::wanted, now_);
    EXPECT_EQ(cell(0).hole, 0U);
    EXPECT_EQ(cell(0).dirty, kCell);
}

TEST(BlockMap, TheOddEndBelongsToTheLastCell) {
    BlockMap map;
    map.start(3 * 4096 + 1);
    const BlockMap::Picture picture = map.look({});
    EXPECT_EQ(picture.cell_bytes, 4096U);
    ASSERT_EQ(picture.cells.size(), 4U);
    EXPECT_EQ(picture.cells[3].to_do, 1U);
    EXPECT_EQ(to_json(picture).at("to_do"), "9999");
}

TEST(BlockMap, OneThatWasNotStartedKeepsNothing) {
    BlockMap map;
    map.begun({0, 5000});
    map.ended({0, 5000}, End::moved);
    map.found({0, 5000}, Found::wanted, {});
    EXPECT_TRUE(map.look({}).cells.empty());
}

TEST(BlockMap, AsJsonNothingIsNoughtAndOnlyAllIsNine) {
    BlockMap map;
    map.start(4 * kSize);
    constexpr std::uint64_t kLarge = 4 * kCell;
    map.all_moved();
    map.found({0, 1}, Found::wanted, BlockMap::Clock::time_point(7s));
    map.found(Range::from_to(1, kLarge), Found::data, BlockMap::Clock::time_point(7s));
    map.found(Range::from_to(kLarge, 3 * kLarge / 2), Found::hole, {});
    map.found(Range::from_to(3 * kLarge / 2, 4 * kSize), Found::data, {});
    const nlohmann::json json = to_json(map.look(BlockMap::Clock::time_point(9s)));
    EXPECT_EQ(json.at("cells"), BlockMap::kMaxCells);
    EXPECT_EQ(json.at("cell_bytes"), kLarge);
    const auto begin_of = [&](const char* state) {
        return json.at(state).get<std::string>().substr(0, 3);
    };
    EXPECT_EQ(begin_of("dirty"), "100");
    EXPECT_EQ(begin_of("moved"), "859");
    EXPECT_EQ(begin_of("hole"), "050");
    EXPECT_EQ(begin_of("in_flight"), "000");
    EXPECT_EQ(begin_of("written"), "299");
}

}  // namespace
}  // namespace nbdm
