// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "client/watch/styled_line.h"

namespace nbdm {

// The characters that pictures are drawn with, each of one column.
struct Glyphs {
    // Of the block map: told apart by their shape alone.
    const char* hole;
    const char* to_do;
    const char* begun;   // less than half of it is moved
    const char* mostly;  // half of it or more
    const char* moved;
    const char* dirty;
    const char* in_flight;

    const char* bar;
    const char* bar_rest;
    const char* mark;                   // a limit in a gauge
    std::array<const char*, 8> levels;  // of a sparkline, from the lowest on

    const char* arrow;
    const char* chosen;   // of a list
    const char* between;  // facts of a line
    const char* rule;
    const char* unknown;
    const char* cut;  // there is more
};

[[nodiscard]] const Glyphs& glyphs_of(const TextStyle& style) noexcept;

}  // namespace nbdm
