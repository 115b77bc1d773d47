// SPDX-License-Identifier: Apache-2.0
#include "client/watch/glyphs.h"

namespace nbdm {

namespace {

constexpr Glyphs kUnicode = {.hole = "·",
                             .to_do = "░",
                             .begun = "▒",
                             .mostly = "▓",
                             .moved = "█",
                             .dirty = "◆",
                             .in_flight = "►",
                             .bar = "━",
                             .bar_rest = "─",
                             .mark = "┃",
                             .levels = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"},
                             .arrow = "→",
                             .chosen = "▶",
                             .between = "·",
                             .rule = "──",
                             .unknown = "–",
                             .cut = "…"};

constexpr Glyphs kAscii = {.hole = ".",
                           .to_do = "-",
                           .begun = "+",
                           .mostly = "%",
                           .moved = "#",
                           .dirty = "!",
                           .in_flight = ">",
                           .bar = "=",
                           .bar_rest = "-",
                           .mark = "|",
                           .levels = {"_", ".", ":", "-", "=", "+", "*", "#"},
                           .arrow = "->",
                           .chosen = ">",
                           .between = "|",
                           .rule = "--",
                           .unknown = "-",
                           .cut = "~"};

}  // namespace

const Glyphs& glyphs_of(const TextStyle& style) noexcept {
    return style.unicode ? kUnicode : kAscii;
}

}  // namespace nbdm
