// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "client/watch/glyphs.h"
#include "client/watch/job_view.h"
#include "client/watch/styled_line.h"

namespace nbdm {

// The rows of a page from top to bottom, of which those are taken that fit.
//
// Threads: a plain value.
class PageRows {
  public:
    static constexpr std::size_t kMargin = 1;

    // What matters: what comes last is left out first.
    enum class Level {
        title,
        bar,
        numbers,
        rates,
        hint,
        map,
        limits,
        ends,  // from here on a map is not that small
        air,
    };
    void add(Level level, StyledLine line);
    void add_air() { add(Level::air, {}); }
    // A map takes what the other rows leave. `disk` outlives this; one without cells takes nothing.
    void add_map(const DiskView& disk);

    // At most `rows`; the maps are `columns` wide, and behind the margin.
    [[nodiscard]] std::vector<StyledLine> fit(std::size_t columns, std::size_t rows,
                                              const Glyphs& glyphs) const;

  private:
    struct Row {
        Level level;
        StyledLine line;
        const DiskView* map;  // instead of a line
    };
    [[nodiscard]] std::size_t count(Level level, bool maps) const;
    // The highest one at which all rows fit.
    [[nodiscard]] Level level_for(std::size_t rows) const;

    std::vector<Row> rows_;
};

}  // namespace nbdm
