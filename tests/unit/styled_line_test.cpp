// SPDX-License-Identifier: Apache-2.0
#include "client/watch/styled_line.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

constexpr TextStyle kPlain{.unicode = true, .colours = TextStyle::Colours::none};
constexpr TextStyle kAscii{.unicode = false, .colours = TextStyle::Colours::none};
constexpr TextStyle kBasic{.unicode = true, .colours = TextStyle::Colours::basic};
constexpr TextStyle kMany{.unicode = true, .colours = TextStyle::Colours::many};
constexpr Ink kRed{Ink::Hue::red};

TEST(Printable, LeavesNothingThatMovesTheCursor) {
    EXPECT_EQ(printable("a\x1b[2Jb"), "a?[2Jb");
    EXPECT_EQ(printable("a\r\n\t\x7f"), "a????");
    EXPECT_EQ(printable("\xc2\x9b"
                        "1m"),
              "?1m");  // CSI in one character
    EXPECT_EQ(printable(std::string(1, '\0')), "?");
    EXPECT_EQ(printable("\xe2\x80\xae"), "?");  // right to left
}

TEST(Printable, LeavesNothingWhoseWidthIsNotKnown) {
    EXPECT_EQ(printable("Grün Ωмир"), "Grün Ωмир");
    EXPECT_EQ(printable("日本"), "??");
    EXPECT_EQ(printable("e\xcc\x81"), "e?");  // combining
}

TEST(Printable, TakesWhatIsNotUtf8ByteByByte) {
    EXPECT_EQ(printable("a\xff\xfe"), "a??");
    EXPECT_EQ(printable("\xc3"), "?");
    EXPECT_EQ(printable("\xc3z"), "?z");
    EXPECT_EQ(printable("\xf0\x9f"), "??");
}

TEST(FirstColumns, CutsBetweenCharacters) {
    EXPECT_EQ(columns_of("grün"), 4U);
    EXPECT_EQ(first_columns("grün", 3), "grü");
    EXPECT_EQ(first_columns("grün", 0), "");
    EXPECT_EQ(first_columns("grün", 9), "grün");
}

TEST(StyledLine, HasNoEscapeSequenceWithoutColours) {
    const StyledLine line = StyledLine().add("bad", {Ink::Hue::red, Ink::Weight::badge}).add(" x");
    EXPECT_EQ(line.text(kPlain, 80), "bad x");
}

TEST(StyledLine, EndsEachColourWhereItsPieceEnds) {
    const StyledLine line = StyledLine().add("a", kRed).add("b");
    EXPECT_EQ(line.text(kBasic, 80), "\x1b[31ma\x1b[0mb");
    EXPECT_EQ(line.text(kMany, 80), "\x1b[38;5;196ma\x1b[0mb");
}

TEST(StyledLine, IsCutByColumnsAndNotByBytes) {
    const StyledLine line = StyledLine().add("grün", kRed).add("→rest");
    EXPECT_EQ(line.columns(), 9U);
    EXPECT_EQ(line.text(kPlain, 5), "grün→");
    EXPECT_EQ(line.text(kBasic, 3), "\x1b[31mgrü\x1b[0m");
    EXPECT_EQ(line.text(kBasic, 0), "");
}

TEST(StyledLine, HasNoSpacesAtItsEnd) {
    EXPECT_EQ(StyledLine().add("a  ").add("  ").text(kPlain, 80), "a");
    EXPECT_EQ(StyledLine().add("a  ").add("  ").text(kBasic, 80), "a");
    EXPECT_EQ(StyledLine().add("   ").text(kPlain, 80), "");
}

TEST(StyledLine, IsAsciiWhereThereIsNoUnicode) {
    EXPECT_EQ(StyledLine().add("grün").text(kAscii, 80), "gr?n");
    EXPECT_EQ(StyledLine().add("grün").text(kAscii, 3), "gr?");
}

TEST(StyledLine, TabsLeaveAtLeastOneSpace) {
    EXPECT_EQ(StyledLine().add("ab").tab(4).add("c").text(kPlain, 80), "ab  c");
    EXPECT_EQ(StyledLine().add("abcd").tab(2).add("e").text(kPlain, 80), "abcd e");
}

}  // namespace
}  // namespace nbdm
