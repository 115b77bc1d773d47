// SPDX-License-Identifier: Apache-2.0
#include "client/watch/terminal.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using Colours = TextStyle::Colours;

TEST(TerminalClaims, ADumbTerminalHasNoScreen) {
    for (const char* term : {static_cast<const char*>(nullptr), "", "dumb", "unknown"}) {
        EXPECT_FALSE(has_screen({.term = term}));
        EXPECT_EQ(style_for({.term = term, .colorterm = "truecolor"}).colours, Colours::none);
    }
    EXPECT_TRUE(has_screen({.term = "xterm"}));
}

TEST(TerminalClaims, NoColorIsHonouredUnlessItIsEmpty) {
    EXPECT_EQ(style_for({.term = "xterm-256color", .no_color = "1"}).colours, Colours::none);
    EXPECT_EQ(style_for({.term = "xterm-256color", .no_color = ""}).colours, Colours::many);
}

TEST(TerminalClaims, HaveAsManyColoursAsTheTerminalSays) {
    EXPECT_EQ(style_for({.term = "xterm"}).colours, Colours::basic);
    EXPECT_EQ(style_for({.term = "tmux-256color"}).colours, Colours::many);
    EXPECT_EQ(style_for({.term = "xterm", .colorterm = "truecolor"}).colours, Colours::many);
    EXPECT_EQ(style_for({.term = "vt220"}).colours, Colours::none);
}

TEST(TerminalClaims, UnicodeNeedsALocaleAndAFontForIt) {
    EXPECT_TRUE(style_for({.term = "xterm", .utf8 = true}).unicode);
    EXPECT_FALSE(style_for({.term = "xterm", .utf8 = false}).unicode);
    EXPECT_FALSE(style_for({.term = "linux", .utf8 = true}).unicode);
}

TEST(ScreenUpdate, SaysNothingWhereNothingChanged) {
    EXPECT_EQ(screen_update({"a", "b"}, {"a", "b"}), "");
    EXPECT_EQ(screen_update({}, {}), "");
    EXPECT_EQ(screen_update({"a"}, {"a", ""}), "");
}

TEST(ScreenUpdate, WritesTheLinesThatDifferWhereTheyBelong) {
    EXPECT_EQ(screen_update({"a", "b", "c"}, {"a", "B", "c"}), "\x1b[2;1HB\x1b[K");
    EXPECT_EQ(screen_update({}, {"a"}), "\x1b[1;1Ha\x1b[K");
}

TEST(ScreenUpdate, ErasesLinesThatAreNoMore) {
    EXPECT_EQ(screen_update({"a", "b"}, {"a"}), "\x1b[2;1H\x1b[K");
}

}  // namespace
}  // namespace nbdm
