// SPDX-License-Identifier: Apache-2.0
#include "client/watch/drawings.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using Cell = DiskView::Cell;

constexpr TextStyle kAscii{.unicode = false, .colours = TextStyle::Colours::none};
constexpr Cell kMoved{.moved = 9};
constexpr Cell kToDo{.to_do = 9};
constexpr Cell kHole{.hole = 9};

std::string text(const StyledLine& line) {
    return line.text(kAscii, 1000);
}

std::string bar(double share, std::size_t columns) {
    return text(draw_bar(share, columns, {}, glyphs_of(kAscii)));
}

std::string gauge(std::optional<double> value, std::optional<double> limit) {
    return text(draw_gauge({value, limit}, 20, glyphs_of(kAscii)));
}

std::string sparkline(const std::vector<std::optional<double>>& values, double top,
                      std::size_t columns) {
    return text(draw_sparkline(values, top, columns, {}, glyphs_of(kAscii)));
}

std::string map(const std::vector<Cell>& cells, std::size_t columns, std::size_t rows) {
    std::string all;
    for (const StyledLine& line : draw_map(cells, columns, rows, glyphs_of(kAscii))) {
        all += text(line) + '\n';
    }
    return all;
}

TEST(Bar, IsFullOnlyWhenAllIsThere) {
    EXPECT_EQ(bar(0, 10), "----------");
    EXPECT_EQ(bar(0.5, 10), "=====-----");
    EXPECT_EQ(bar(0.9999, 10), "=========-");
    EXPECT_EQ(bar(1, 10), "==========");
}

TEST(Bar, StaysInItsColumnsWhateverTheShare) {
    EXPECT_EQ(bar(-1, 4), "----");
    EXPECT_EQ(bar(7, 4), "====");
    EXPECT_EQ(bar(0.5, 0), "");
}

TEST(Gauge, WhatFitsEndsBeforeTheMark) {
    EXPECT_EQ(gauge(0, 500), "--------------|-----");
    EXPECT_EQ(gauge(1, 500), "=-------------|-----");
    EXPECT_EQ(gauge(500, 500), "==============|-----");
}

TEST(Gauge, WhatDoesNotFitIsBeyondIt) {
    EXPECT_EQ(gauge(501, 500).substr(0, 15), "==============|");
    EXPECT_EQ(gauge(1e9, 500), "==============|=====");
}

TEST(Gauge, WithoutALimitThereIsNoMark) {
    EXPECT_EQ(gauge(10, std::nullopt), "--------------------");
    EXPECT_EQ(gauge(std::nullopt, 0), "--------------------");
}

TEST(Sparkline, ShowsTheNewestAtTheRight) {
    EXPECT_EQ(sparkline({0, 1, 8}, 8, 5), "  _.#");
    EXPECT_EQ(sparkline({8, 8, 8, 0}, 8, 2), "#_");
}

TEST(Sparkline, WhatIsNotKnownIsBlankAndNotZero) {
    EXPECT_EQ(sparkline({std::nullopt, 4, std::nullopt, 4}, 4, 4), " # #");
}

TEST(Sparkline, LittleIsMoreThanNothing) {
    EXPECT_EQ(sparkline({0, 1e-9}, 1, 2), "_.");
    EXPECT_EQ(sparkline({0, 0}, 0, 2), "__");
}

TEST(Map, EachStateHasAShapeOfItsOwn) {
    const std::vector<Cell> cells = {kHole,
                                     kToDo,
                                     {.to_do = 6, .moved = 3},
                                     {.to_do = 3, .moved = 6},
                                     kMoved,
                                     {.moved = 8, .dirty = 1},
                                     {.to_do = 8, .in_flight = 1}};
    EXPECT_EQ(map(cells, 7, 1), ".-+%#!>\n");
}

TEST(Map, WhatAsksForAttentionIsSeenHoweverSmallItIs) {
    std::vector<Cell> cells(1024, kMoved);
    cells[1000].dirty = 1;
    EXPECT_EQ(map(cells, 64, 1), std::string(62, '#') + "!#\n");
    cells[1001].in_flight = 1;
    EXPECT_EQ(map(cells, 64, 1), std::string(62, '#') + ">#\n");
}

TEST(Map, WhatWasJustWrittenIsDirtyEvenIfItIsMovedAlready) {
    EXPECT_EQ(map({kMoved, {.moved = 9, .written = 0}, {.moved = 9, .written = 3}}, 3, 1), "#!#\n");
}

TEST(Map, AStretchIsMovedOnlyWhenAllOfItIs) {
    EXPECT_EQ(map({kMoved, kMoved, kMoved, kToDo}, 2, 1), "#%\n");
    EXPECT_EQ(map({kMoved, kHole, kHole, kHole}, 2, 1), "#.\n");
}

TEST(Map, TakesNoMoreLinesThanItHasCells) {
    EXPECT_EQ(map({kMoved, kToDo, kHole}, 2, 9), "#-\n.\n");
    EXPECT_EQ(map({}, 10, 3), "");
    EXPECT_EQ(map({kMoved}, 0, 3), "");
    EXPECT_EQ(map({kMoved}, 3, 0), "");
}

}  // namespace
}  // namespace nbdm
