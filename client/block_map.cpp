// SPDX-License-Identifier: Apache-2.0
#include "client/block_map.h"

#include <algorithm>
#include <cassert>
#include <string>

namespace nbdm {

namespace {

// Cells begin where blocks of file systems do.
constexpr std::uint64_t kCellUnitBytes = 4096;

constexpr auto kRelaxed = std::memory_order_relaxed;

// 0 only for nothing and 9 only for all: a single block must not disappear.
char share(std::uint64_t part, std::uint64_t whole) {
    if (part == 0) {
        return '0';
    }
    if (part >= whole) {
        return '9';
    }
    return static_cast<char>(
        '1' + static_cast<int>(8.0 * static_cast<double>(part) / static_cast<double>(whole)));
}

char seconds(BlockMap::Clock::duration time) {
    const auto whole = std::chrono::duration_cast<std::chrono::seconds>(time).count();
    return static_cast<char>('0' + std::clamp<std::int64_t>(whole, 0, 9));
}

}  // namespace

void BlockMap::start(std::uint64_t size_bytes) noexcept {
    const std::uint64_t cell_bytes =
        align_up(size_bytes / kMaxCells + (size_bytes % kMaxCells != 0 ? 1 : 0), kCellUnitBytes);
    size_bytes_.store(size_bytes, kRelaxed);
    cell_bytes_.store(cell_bytes, kRelaxed);
    once_moved_.store(false, kRelaxed);
    for (Counts& cell : cells_) {
        cell.waiting.store(0, kRelaxed);
        cell.hole.store(0, kRelaxed);
        cell.written.store(0, kRelaxed);
    }
    for_each_cell({0, size_bytes},
                  [](Counts& cell, std::uint64_t bytes) { cell.waiting.store(bytes, kRelaxed); });
}

void BlockMap::all_moved() noexcept {
    once_moved_.store(true, kRelaxed);
    for (Counts& cell : cells_) {
        cell.waiting.store(0, kRelaxed);
    }
}

template <typename Call>
void BlockMap::for_each_cell(Range range, Call call) noexcept {
    const std::uint64_t cell_bytes = cell_bytes_.load(kRelaxed);
    if (cell_bytes == 0) {
        return;
    }
    for (std::uint64_t index = range.offset / cell_bytes; !range.empty(); ++index) {
        assert(index < kMaxCells);
        const std::uint64_t end = std::min((index + 1) * cell_bytes, range.end());
        call(cells_[index], end - range.offset);
        range = Range::from_to(end, range.end());
    }
}

void BlockMap::found(Range range, Found what, Clock::time_point now) noexcept {
    const std::uint64_t cell_bytes = cell_bytes_.load(kRelaxed);
    const bool again = what == Found::wanted && once_moved_.load(kRelaxed);
    const bool tells_holes = what == Found::data || what == Found::hole;
    std::uint64_t at = range.offset;
    if (at == 0) {
        holes_found_to_ = 0;
    }
    for_each_cell(range, [&](Counts& cell, std::uint64_t bytes) {
        // The sweep knows better than what is left of an earlier one, which may have failed.
        if (at % cell_bytes == 0) {
            cell.waiting.store(0, kRelaxed);
        }
        const bool all_wanted = what == Found::wanted && bytes == cell_bytes;
        if ((tells_holes && at >= holes_found_to_) || all_wanted) {
            cell.hole.store(0, kRelaxed);
            holes_found_to_ = at - at % cell_bytes + cell_bytes;
        }
        at += bytes;
        if (what == Found::wanted) {
            cell.waiting.fetch_add(bytes, kRelaxed);
        } else if (what == Found::hole) {
            cell.hole.fetch_add(bytes, kRelaxed);
        }
        if (again) {
            cell.written.store(now.time_since_epoch().count(), kRelaxed);
        }
    });
}

void BlockMap::skipped(Range range) noexcept {
    for_each_cell(range, [](Counts& cell, std::uint64_t bytes) {
        cell.waiting.fetch_sub(bytes, kRelaxed);
        cell.hole.fetch_add(bytes, kRelaxed);
    });
}

void BlockMap::begun(Range range) noexcept {
    for_each_cell(range, [](Counts& cell, std::uint64_t bytes) {
        cell.waiting.fetch_sub(bytes, kRelaxed);
        cell.in_flight.fetch_add(bytes, kRelaxed);
    });
}

void BlockMap::ended(Range range, End how) noexcept {
    for_each_cell(range, [how](Counts& cell, std::uint64_t bytes) {
        cell.in_flight.fetch_sub(bytes, kRelaxed);
        if (how == End::zeroed) {
            cell.hole.fetch_add(bytes, kRelaxed);
        } else if (how == End::failed) {
            cell.waiting.fetch_add(bytes, kRelaxed);
        }
    });
}

BlockMap::Picture BlockMap::look(Clock::time_point now) const {
    Picture picture{.size_bytes = size_bytes_.load(kRelaxed),
                    .cell_bytes = cell_bytes_.load(kRelaxed),
                    .cells = {}};
    const bool once_moved = once_moved_.load(kRelaxed);
    std::uint64_t left = picture.cell_bytes == 0 ? 0 : picture.size_bytes;
    for (const Counts& from : cells_) {
        if (left == 0) {
            break;
        }
        std::uint64_t rest = std::min(left, picture.cell_bytes);
        left -= rest;
        // The counts change while they are read: each takes what the ones before have left.
        const auto take = [&rest](const std::atomic<std::uint64_t>& count) {
            const std::uint64_t bytes = std::min(count.load(kRelaxed), rest);
            rest -= bytes;
            return bytes;
        };
        Cell& cell = picture.cells.emplace_back();
        cell.in_flight = take(from.in_flight);
        (once_moved ? cell.dirty : cell.to_do) = take(from.waiting);
        cell.hole = take(from.hole);
        cell.moved = rest;
        if (const Clock::rep written = from.written.load(kRelaxed); written != 0) {
            cell.written_ago = now - Clock::time_point(Clock::duration(written));
        }
    }
    return picture;
}

nlohmann::json to_json(const BlockMap::Picture& picture) {
    std::string hole;
    std::string to_do;
    std::string moved;
    std::string dirty;
    std::string in_flight;
    std::string written;
    std::uint64_t left = picture.size_bytes;
    for (const BlockMap::Cell& cell : picture.cells) {
        const std::uint64_t bytes = std::min(left, picture.cell_bytes);
        left -= bytes;
        hole += share(cell.hole, bytes);
        to_do += share(cell.to_do, bytes);
        moved += share(cell.moved, bytes);
        dirty += share(cell.dirty, bytes);
        in_flight += share(cell.in_flight, bytes);
        written += seconds(cell.written_ago);
    }
    return {{"size_bytes", picture.size_bytes},
            {"cell_bytes", picture.cell_bytes},
            {"cells", picture.cells.size()},
            {"hole", hole},
            {"to_do", to_do},
            {"moved", moved},
            {"dirty", dirty},
            {"in_flight", in_flight},
            {"written", written}};
}

}  // namespace nbdm
