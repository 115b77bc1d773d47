// SPDX-License-Identifier: Apache-2.0
#include "client/watch/drawings.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace nbdm {

namespace {

using Hue = Ink::Hue;

// As solid as what is moved, so that they stand out of it.
constexpr Ink kDirty{Hue::yellow, Ink::Weight::badge};
constexpr Ink kInFlight{Hue::blue, Ink::Weight::badge};

// Where a gauge has its limit: what is beyond must be seen, too.
constexpr double kLimitShare = 0.7;
// Cells that were found to be written so many seconds ago count as dirty: rounds may be shorter
// than the time between two looks.
constexpr unsigned kJustWritten = 0;

std::string repeated(const char* glyph, std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) {
        text += glyph;
    }
    return text;
}

// The columns of `all` that `share` fills.
std::size_t part_of(double share, std::size_t all) {
    const double columns = std::floor(std::clamp(share, 0.0, 1.0) * static_cast<double>(all));
    return static_cast<std::size_t>(columns);
}

struct Look {
    const char* glyph;
    Ink ink;
};

// What asks for attention comes first; a stretch is only moved when all of it is.
Look look_of(const DiskView::Cell& sum, const Glyphs& glyphs) {
    if (sum.in_flight > 0) {
        return {glyphs.in_flight, kInFlight};
    }
    if (sum.dirty > 0 || sum.written <= kJustWritten) {
        return {glyphs.dirty, kDirty};
    }
    if (sum.to_do > 0 && sum.moved == 0) {
        return {glyphs.to_do, {Hue::grey}};
    }
    if (sum.to_do > 0) {
        return {sum.moved < sum.to_do ? glyphs.begun : glyphs.mostly, {Hue::green}};
    }
    return sum.moved > 0 ? Look{glyphs.moved, {Hue::green}} : Look{glyphs.hole, {Hue::grey}};
}

DiskView::Cell sum_of(const std::vector<DiskView::Cell>& cells, std::size_t begin,
                      std::size_t end) {
    DiskView::Cell sum;
    for (std::size_t i = begin; i < end; ++i) {
        const DiskView::Cell& cell = cells[i];
        sum.hole += cell.hole;
        sum.to_do += cell.to_do;
        sum.moved += cell.moved;
        sum.dirty += cell.dirty;
        sum.in_flight += cell.in_flight;
        sum.written = std::min(sum.written, cell.written);
    }
    return sum;
}

}  // namespace

StyledLine draw_bar(double share, std::size_t columns, Ink ink, const Glyphs& glyphs) {
    const std::size_t filled = part_of(share, columns);
    return StyledLine()
        .add(repeated(glyphs.bar, filled), ink)
        .add(repeated(glyphs.bar_rest, columns - filled), {Hue::grey});
}

StyledLine draw_gauge(Gauge gauge, std::size_t columns, const Glyphs& glyphs) {
    StyledLine line;
    if (!gauge.limit || *gauge.limit <= 0 || columns == 0) {
        return line.add(repeated(glyphs.bar_rest, columns), {Hue::grey});
    }
    const std::size_t limit = part_of(kLimitShare, columns);
    const double value = gauge.value.value_or(0);
    const bool fits = value <= *gauge.limit;
    std::size_t filled = part_of(kLimitShare * value / *gauge.limit, columns);
    // Rounding must not show what fits beyond the mark, nor hide what does not, or little.
    filled = fits ? std::clamp<std::size_t>(filled, value > 0 ? 1 : 0, limit)
                  : std::max(filled, limit + 1);
    const Ink ink{fits ? Hue::green : Hue::red};
    const std::size_t before = std::min(filled, limit);
    line.add(repeated(glyphs.bar, before), ink)
        .add(repeated(glyphs.bar_rest, limit - before), {Hue::grey})
        .add(glyphs.mark);
    const std::size_t beyond = filled > limit + 1 ? filled - limit - 1 : 0;
    return line.add(repeated(glyphs.bar, beyond), ink)
        .add(repeated(glyphs.bar_rest, columns - limit - 1 - beyond), {Hue::grey});
}

StyledLine draw_sparkline(const std::vector<std::optional<double>>& values, double top,
                          std::size_t columns, Ink ink, const Glyphs& glyphs) {
    const std::size_t shown = std::min(values.size(), columns);
    std::string text(columns - shown, ' ');
    for (std::size_t i = values.size() - shown; i < values.size(); ++i) {
        if (!values[i]) {
            text += ' ';
            continue;
        }
        constexpr double kHighest = std::tuple_size_v<decltype(Glyphs::levels)> - 1;
        const double share = top > 0 ? std::clamp(*values[i] / top, 0.0, 1.0) : 0;
        // The lowest level is for nothing at all.
        const double level = *values[i] > 0 ? std::max(1.0, std::round(share * kHighest)) : 0;
        text += glyphs.levels.at(static_cast<std::size_t>(level));
    }
    return StyledLine().add(text, ink);
}

std::size_t most_map_rows(const std::vector<DiskView::Cell>& cells, std::size_t columns) {
    return columns == 0 ? 0 : (cells.size() + columns - 1) / columns;
}

std::vector<StyledLine> draw_map(const std::vector<DiskView::Cell>& cells, std::size_t columns,
                                 std::size_t rows, const Glyphs& glyphs) {
    std::vector<StyledLine> lines(std::min(rows, most_map_rows(cells, columns)));
    // As many glyphs as there is room for, each for a stretch of the disk.
    const std::size_t count = std::min(cells.size(), lines.size() * columns);
    for (std::size_t i = 0; i < count; ++i) {
        const DiskView::Cell sum =
            sum_of(cells, i * cells.size() / count, (i + 1) * cells.size() / count);
        const Look look = look_of(sum, glyphs);
        lines[i / columns].add(look.glyph, look.ink);
    }
    return lines;
}

StyledLine draw_legend(const Glyphs& glyphs) {
    const std::vector<std::pair<Look, const char*>> entries = {
        {{glyphs.moved, {Hue::green}}, "moved"},      {{glyphs.mostly, {Hue::green}}, "partly"},
        {{glyphs.to_do, {Hue::grey}}, "to do"},       {{glyphs.dirty, kDirty}, "dirty"},
        {{glyphs.in_flight, kInFlight}, "in flight"}, {{glyphs.hole, {Hue::grey}}, "hole"}};
    StyledLine line;
    for (const auto& [look, name] : entries) {
        line.add(line.columns() > 0 ? "  " : "").add(look.glyph, look.ink);
        line.add(std::string(" ") + name, {Hue::grey});
    }
    return line;
}

}  // namespace nbdm
