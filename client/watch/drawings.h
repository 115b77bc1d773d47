// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "client/watch/glyphs.h"
#include "client/watch/job_view.h"
#include "client/watch/styled_line.h"

namespace nbdm {

// Pictures of numbers, in characters.
//
// Threads: any.

// Filled up to `share`, 0 to 1; full only when all is there.
[[nodiscard]] StyledLine draw_bar(double share, std::size_t columns, Ink ink, const Glyphs& glyphs);

// How far a value is from its limit, which is marked: green up to it, red beyond.
struct Gauge {
    std::optional<double> value;
    std::optional<double> limit;
};
[[nodiscard]] StyledLine draw_gauge(Gauge gauge, std::size_t columns, const Glyphs& glyphs);

// The newest values, at the right; `top` has the highest level, and what is not known is blank.
[[nodiscard]] StyledLine draw_sparkline(const std::vector<std::optional<double>>& values,
                                        double top, std::size_t columns, Ink ink,
                                        const Glyphs& glyphs);

// In at most `rows` lines; fewer when the disk has no more cells.
[[nodiscard]] std::vector<StyledLine> draw_map(const std::vector<DiskView::Cell>& cells,
                                               std::size_t columns, std::size_t rows,
                                               const Glyphs& glyphs);
// How many lines draw_map() fills at most.
[[nodiscard]] std::size_t most_map_rows(const std::vector<DiskView::Cell>& cells,
                                        std::size_t columns);
[[nodiscard]] StyledLine draw_legend(const Glyphs& glyphs);

}  // namespace nbdm
