// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <nlohmann/json.hpp>

#include "iothread/range.h"

namespace nbdm {

// Where on a disk a job stands, coarsely: up to kMaxCells cells of one size, and how many bytes of
// each are in which state. Bytes that were found to be wanted wait, are in flight, and are then at
// the target; each step is told by whoever makes it.
//
// Threads: start(), all_moved(), found() and skipped() one at a time; begun() and ended() by
//          workers; look() by any. Relaxed: for display only.
class BlockMap {
  public:
    using Clock = std::chrono::steady_clock;
    static constexpr std::size_t kMaxCells = 1024;

    // Nothing is known of a disk of this size: all of it is to do. Nothing is in flight. A map that
    // was not started keeps nothing.
    void start(std::uint64_t size_bytes) noexcept;
    // Nothing waits any more: what is found from now on was written since.
    void all_moved() noexcept;

    // What a sweep finds: ascending from 0 on, without gaps, each before any of it is begun. Where
    // neither data nor holes are found in a cell it keeps the holes that it had, and what is zeroed
    // there again counts again, until a sweep that looks for holes.
    enum class Found { wanted, data, hole, neither_known };
    void found(Range range, Found what, Clock::time_point now) noexcept;
    // A wanted hole that the target has too.
    void skipped(Range range) noexcept;

    void begun(Range range) noexcept;
    enum class End { moved, zeroed, failed };
    void ended(Range range, End how) noexcept;

    // Bytes; they add up to the cell's.
    struct Cell {
        std::uint64_t hole = 0;  // reads as zero, also at the target
        std::uint64_t to_do = 0;
        std::uint64_t moved = 0;
        std::uint64_t dirty = 0;  // was moved, and written again
        std::uint64_t in_flight = 0;
        // Since something in it was last found to be written again; never is long ago.
        Clock::duration written_ago = Clock::duration::max();
    };
    struct Picture {
        std::uint64_t size_bytes = 0;
        std::uint64_t cell_bytes = 0;
        std::vector<Cell> cells;  // the last one may be shorter
    };
    [[nodiscard]] Picture look(Clock::time_point now) const;

  private:
    struct Counts {
        std::atomic<std::uint64_t> waiting{0};
        std::atomic<std::uint64_t> in_flight{0};
        std::atomic<std::uint64_t> hole{0};
        std::atomic<Clock::rep> written{0};  // since the clock's epoch; 0: never
    };
    // Each cell that `range` touches, and how many of its bytes.
    template <typename Call>
    void for_each_cell(Range range, Call call) noexcept;

    std::atomic<std::uint64_t> size_bytes_{0};
    std::atomic<std::uint64_t> cell_bytes_{0};  // 0: not started
    std::atomic<bool> once_moved_{false};
    std::array<Counts, kMaxCells> cells_;
    std::uint64_t holes_found_to_ = 0;  // up to here this sweep has begun cells' holes anew
};

// The fields of one disk in the answer of GET /v1/job/map. A character a cell: how much of it is in
// the state, from 0 (nothing) to 9 (all); in "written" how many seconds ago, 9 for more.
[[nodiscard]] nlohmann::json to_json(const BlockMap::Picture& picture);

}  // namespace nbdm
