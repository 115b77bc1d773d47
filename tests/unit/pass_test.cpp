// SPDX-License-Identifier: Apache-2.0
#include "client/pass.h"

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include "client/engine.h"
#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

constexpr std::uint64_t kKib = 1024;
constexpr std::uint64_t kMib = 1024 * kKib;

// Runs passes over extents that the test makes up, and takes the pieces as a worker would.
class PassTest : public testing::Test {
  protected:
    PassTest() {
        std::ofstream(directory_.file("source")) << "";
        std::ofstream(directory_.file("target")) << "";
    }

    // Both sides have this size; their content is never looked at.
    void use_disks(std::uint64_t bytes) {
        std::filesystem::resize_file(directory_.file("source"), bytes);
        std::filesystem::resize_file(directory_.file("target"), bytes);
    }

    std::vector<Piece> run(std::vector<Extent> source, TargetZeroes target_zeroes,
                           Pass::Options options = {}) {
        Side from = Side::open_source(Location::parse(directory_.file("source")), cancellation_);
        Side to = Side::open_target(Location::parse(directory_.file("target")), {}, cancellation_);
        KnownScout scout(std::move(source));
        Pass pass({.source = from,
                   .target = to,
                   .queue = queue_,
                   .counters = counters_,
                   .map = map_,
                   .cancellation = cancellation_,
                   .tick = tick_,
                   .abandon = [this] { abandoned_ = true; }},
                  options);
        const std::jthread worker([this](const std::stop_token& stop) { work(stop); });
        pass.run(scout, target_zeroes);
        return pieces_;
    }

    void work(const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            const std::optional<Piece> piece = queue_.try_pop(worker_).piece;
            if (!piece) {
                std::this_thread::yield();
                continue;
            }
            pieces_.push_back(*piece);
            if (piece->range.offset == failing_offset_) {
                queue_.fail({.sentence = "it broke"});
            }
            queue_.finished(worker_, *piece);
        }
    }

    static TargetZeroes nothing_known() { return TargetZeroes(false); }

    TemporaryDirectory directory_;
    Cancellation cancellation_;
    Pace pace_;
    WorkQueue queue_{pace_, {}};
    WorkCounters counters_;
    BlockMap map_;
    IoThread worker_{{.name = "worker"}, [](IoThread&) {}};
    std::vector<Piece> pieces_;
    std::function<void()> tick_;
    std::uint64_t failing_offset_ = UINT64_MAX;
    bool abandoned_ = false;
};

void expect_pieces(const std::vector<Piece>& pieces,
                   const std::vector<std::pair<Piece::Kind, Range>>& expected) {
    ASSERT_EQ(pieces.size(), expected.size());
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        EXPECT_EQ(pieces[i].kind, expected[i].first) << i;
        EXPECT_EQ(pieces[i].range, expected[i].second) << i;
    }
}

TEST_F(PassTest, DataIsCutAtRequestsAndEndsWithTheDisk) {
    use_disks(512 * kKib + 777);
    expect_pieces(run({{.range = {0, 512 * kKib + 777}}}, nothing_known()),
                  {{Piece::Kind::copy, {0, 256 * kKib}},
                   {Piece::Kind::copy, {256 * kKib, 256 * kKib}},
                   {Piece::Kind::copy, {512 * kKib, 777}}});
}

TEST_F(PassTest, AUnitThatIsZeroOnlyInPartJoinsTheDataBesideIt) {
    use_disks(kMib);
    expect_pieces(run({{.range = {0, 5000}},
                       {.range = {5000, 95'000}, .allocation = Allocation::zero},
                       {.range = {100'000, kMib - 100'000}}},
                      nothing_known(), {.request_bytes = kMib}),
                  {{Piece::Kind::copy, {0, 8192}},
                   {Piece::Kind::zero, Range::from_to(8192, 98'304)},
                   {Piece::Kind::copy, Range::from_to(98'304, kMib)}});
}

TEST_F(PassTest, AHoleUpToAnOddEndIsZeroedToTheEnd) {
    use_disks(100'001);
    expect_pieces(run({{.range = {0, 100'001}, .allocation = Allocation::zero}}, nothing_known()),
                  {{Piece::Kind::zero, {0, 100'001}}});
}

TEST_F(PassTest, AHugeHoleCostsFewRequestsOrNone) {
    constexpr std::uint64_t kHuge = std::uint64_t{1} << 40;
    use_disks(kHuge);
    EXPECT_EQ(run({{.range = {0, kHuge}, .allocation = Allocation::zero}}, nothing_known()).size(),
              1024U);
    pieces_.clear();
    counters_.moved_bytes = 0;
    EXPECT_TRUE(
        run({{.range = {0, kHuge}, .allocation = Allocation::zero}}, TargetZeroes(true)).empty());
    EXPECT_EQ(counters_.moved_bytes, kHuge);
}

TEST_F(PassTest, OnlyWhereTheTargetReadsAsZeroIsAHoleSkipped) {
    use_disks(4 * kMib);
    std::vector<Extent> target = {
        {.range = {0, kMib}, .allocation = Allocation::zero},
        {.range = {kMib, kMib + 100}},
        {.range = {2 * kMib + 100, 2 * kMib - 100}, .allocation = Allocation::zero}};
    expect_pieces(run({{.range = {0, 4 * kMib}, .allocation = Allocation::zero}},
                      TargetZeroes(std::make_unique<KnownScout>(target), 4 * kMib)),
                  {{Piece::Kind::zero, Range::from_to(kMib, 2 * kMib + 4096)}});
}

TEST_F(PassTest, DirtyHolesAreZeroedAndCleanDataIsLeftAlone) {
    use_disks(4 * kMib);
    expect_pieces(run({{.range = {0, kMib}, .dirty = false},
                       {.range = {kMib, 64 * kKib}, .allocation = Allocation::zero},
                       {.range = {kMib + 64 * kKib, 64 * kKib}},
                       {.range = {kMib + 128 * kKib, 3 * kMib - 128 * kKib}, .dirty = false}},
                      nothing_known(), {.only_dirty = true}),
                  {{Piece::Kind::zero, {kMib, 64 * kKib}},
                   {Piece::Kind::copy, {kMib + 64 * kKib, 64 * kKib}}});
}

TEST_F(PassTest, TheMapIsToldWhatTheSweepFinds) {
    constexpr std::uint64_t kCell = 64 * kKib;
    use_disks(BlockMap::kMaxCells * kCell);
    map_.start(BlockMap::kMaxCells * kCell);
    run({{.range = {0, kCell}},
         {.range = {kCell, kCell}, .allocation = Allocation::zero},
         {.range = {2 * kCell, kCell}, .dirty = false},
         {.range = {3 * kCell, 1021 * kCell}, .allocation = Allocation::zero, .dirty = false}},
        TargetZeroes(true), {.only_dirty = true});
    const std::vector<BlockMap::Cell> cells = map_.look({}).cells;
    EXPECT_EQ(cells[0].to_do, kCell) << "what becomes of it is told by workers";
    EXPECT_EQ(cells[1].hole, kCell);
    EXPECT_EQ(cells[2].moved, kCell);
    EXPECT_EQ(cells[3].hole, kCell);
}

TEST_F(PassTest, WhatIsOnlyComparedIsNotShownAsChanged) {
    constexpr std::uint64_t kCell = 64 * kKib;
    use_disks(BlockMap::kMaxCells * kCell);
    map_.start(BlockMap::kMaxCells * kCell);
    map_.all_moved();
    run({{.range = {0, kCell}}, {.range = {kCell, 1023 * kCell}, .allocation = Allocation::zero}},
        TargetZeroes(true), {.with_data = Piece::Kind::compare});
    const BlockMap::Cell cell = map_.look({}).cells[0];
    EXPECT_EQ(cell.dirty, 0U);
    EXPECT_EQ(cell.written_ago, BlockMap::Clock::duration::max());
}

TEST_F(PassTest, AllocatedSendsHolesAsData) {
    use_disks(256 * kKib);
    expect_pieces(run({{.range = {0, 256 * kKib}, .allocation = Allocation::zero}},
                      TargetZeroes(true), {.zeroes_as_data = true}),
                  {{Piece::Kind::copy, {0, 256 * kKib}}});
}

TEST_F(PassTest, TheFirstFailureEndsThePassWithNothingUnderWay) {
    use_disks(1024 * kMib);
    failing_offset_ = 256 * kKib;
    EXPECT_THROW(run({{.range = {0, 1024 * kMib}}}, nothing_known()), JobError);
    EXPECT_TRUE(queue_.wait_until_idle(std::chrono::milliseconds(0)));
    EXPECT_LT(pieces_.size(), 4096U);
    EXPECT_FALSE(queue_.failed());
}

TEST_F(PassTest, ACancellationEndsThePass) {
    use_disks(kMib);
    cancellation_.request();
    EXPECT_THROW(run({{.range = {0, kMib}}}, nothing_known()), Cancelled);
    EXPECT_TRUE(queue_.wait_until_idle(std::chrono::milliseconds(0)));
}

TEST_F(PassTest, WhatATickThrowsEndsThePass) {
    use_disks(kMib);
    tick_ = [] { throw std::out_of_range("enough"); };
    EXPECT_THROW(run({{.range = {0, kMib}}}, nothing_known()), std::out_of_range);
    EXPECT_FALSE(abandoned_);
}

TEST(FittingOptions, WithoutMultiConnThereIsOneConnection) {
    EngineOptions options;
    EndpointTraits shared;
    EndpointTraits alone;
    alone.can_multi_conn = false;
    EXPECT_EQ(fitting_options(options, shared, shared).connections, 4U);
    EXPECT_EQ(fitting_options(options, alone, shared).connections, 1U);
    EXPECT_EQ(fitting_options(options, shared, alone).connections, 1U);
}

TEST(FittingOptions, RequestsAreAPowerOfTwoThatBothSidesTake) {
    EndpointTraits odd;
    odd.max_payload_bytes = 100'000;
    EXPECT_EQ(fitting_options({}, odd, {}).request_bytes, 65536U);
    EndpointTraits coarse;
    coarse.alignment = 65536;
    EXPECT_EQ(fitting_options({.request_bytes = 4096}, {}, coarse).request_bytes, 65536U);
}

}  // namespace
}  // namespace nbdm
