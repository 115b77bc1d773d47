// SPDX-License-Identifier: Apache-2.0
#include "client/worker.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::uint64_t kOffset = 1 << 20;

// A block for each letter: '0' is zero, anything else is data.
std::vector<std::byte> blocks(const std::string& letters, std::size_t tail_bytes = kBlock) {
    std::vector<std::byte> data((letters.size() - 1) * kBlock + tail_bytes);
    for (std::size_t i = 0; i < letters.size(); ++i) {
        if (letters[i] != '0') {
            data[std::min((i + 1) * kBlock, data.size()) - 1] = std::byte{1};
        }
    }
    return data;
}

struct Expected {
    std::uint64_t first_block;
    std::uint64_t bytes;
    bool zero;
};

void expect_runs(const std::vector<std::byte>& data, ZeroGrain grain,
                 const std::vector<Expected>& expected) {
    const std::vector<ZeroRun> runs = split_zeroes(data, kOffset, grain);
    ASSERT_EQ(runs.size(), expected.size());
    for (std::size_t i = 0; i < runs.size(); ++i) {
        EXPECT_EQ(runs[i].range,
                  (Range{kOffset + expected[i].first_block * kBlock, expected[i].bytes}));
        EXPECT_EQ(runs[i].zero, expected[i].zero);
    }
}

TEST(SplitZeroes, DataIsOnePieceAndSoAreZeroes) {
    expect_runs(blocks("xx"), {}, {{0, 2 * kBlock, false}});
    expect_runs(blocks("00"), {}, {{0, 2 * kBlock, true}});
}

TEST(SplitZeroes, OneByteAtTheEndOfABlockMakesItData) {
    expect_runs(blocks("0000x0000"), {},
                {{0, 4 * kBlock, true}, {4, kBlock, false}, {5, 4 * kBlock, true}});
}

TEST(SplitZeroes, ShortRunsStayWithTheirNeighbours) {
    expect_runs(blocks("x000x0000x"), {},
                {{0, 5 * kBlock, false}, {5, 4 * kBlock, true}, {9, kBlock, false}});
}

TEST(SplitZeroes, APieceOfZeroesIsZeroHoweverShort) {
    expect_runs(blocks("0", 100), {}, {{0, 100, true}});
}

TEST(SplitZeroes, TheOddEndBelongsToTheLastRun) {
    expect_runs(blocks("xx0000", 1), {}, {{0, 6 * kBlock - 4095, false}});
    expect_runs(blocks("xx00000", 1), {}, {{0, 2 * kBlock, false}, {2, 4 * kBlock + 1, true}});
}

TEST(SplitZeroes, RunsBeginAndEndOnLargerBlocksWhereTheTargetWantsThem) {
    expect_runs(blocks("x000000x"), {.block_bytes = 4 * kBlock, .min_run_bytes = 0},
                {{0, 8 * kBlock, false}});
    expect_runs(blocks("x00000000000"), {.block_bytes = 4 * kBlock, .min_run_bytes = 0},
                {{0, 4 * kBlock, false}, {4, 8 * kBlock, true}});
}

}  // namespace
}  // namespace nbdm
