// SPDX-License-Identifier: Apache-2.0
#include "client/watch/page_rows.h"

#include <algorithm>
#include <string>
#include <utility>

#include "client/watch/drawings.h"

namespace nbdm {

namespace {

// Rows of a map, at least.
constexpr std::size_t kSmallMap = 1;
constexpr std::size_t kLargeMap = 4;

}  // namespace

void PageRows::add(Level level, StyledLine line) {
    rows_.push_back({level, std::move(line), nullptr});
}

void PageRows::add_map(const DiskView& disk) {
    if (!disk.cells.empty()) {
        rows_.push_back({Level::map, {}, &disk});
    }
}

std::size_t PageRows::count(Level level, bool maps) const {
    const auto found = std::count_if(rows_.begin(), rows_.end(), [&](const Row& row) {
        return row.level <= level && (row.map != nullptr) == maps;
    });
    return static_cast<std::size_t>(found);
}

PageRows::Level PageRows::level_for(std::size_t rows) const {
    for (auto level = Level::air; level > Level::title;
         level = static_cast<Level>(static_cast<int>(level) - 1)) {
        const std::size_t map_rows = level >= Level::ends ? kLargeMap : kSmallMap;
        if (count(level, false) + map_rows * count(level, true) <= rows) {
            return level;
        }
    }
    return Level::title;
}

std::vector<StyledLine> PageRows::fit(std::size_t columns, std::size_t rows,
                                      const Glyphs& glyphs) const {
    const Level level = level_for(rows);
    const std::size_t lines = count(level, false);
    const std::size_t maps = std::max<std::size_t>(count(level, true), 1);
    const std::size_t map_rows = rows > lines ? (rows - lines) / maps : 0;
    std::vector<StyledLine> page;
    const Row* before = nullptr;
    for (const Row& row : rows_) {
        const bool second_air =
            row.level == Level::air && before != nullptr && before->level == Level::air;
        if (row.level > level || second_air) {
            continue;
        }
        before = &row;
        if (row.map == nullptr) {
            page.push_back(row.line);
            continue;
        }
        for (const StyledLine& line : draw_map(row.map->cells, columns, map_rows, glyphs)) {
            page.push_back(StyledLine().add(std::string(kMargin, ' ')).add(line));
        }
    }
    page.resize(std::min(page.size(), rows));
    return page;
}

}  // namespace nbdm
