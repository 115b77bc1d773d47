// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/block_map.h"
#include "client/cancellation.h"
#include "client/scout.h"
#include "client/side.h"
#include "client/work_counters.h"
#include "client/work_queue.h"
#include "iothread/range.h"

namespace nbdm {

// Which parts of the target are known to read as zero, asked for as the pass comes along.
//
// Threads: one at a time. Only good for parts that the job has not written to yet.
class TargetZeroes {
  public:
    // Without a scout: `all` of it does, or nothing is known.
    explicit TargetZeroes(bool all) : all_(all) {}
    explicit TargetZeroes(std::unique_ptr<Scout> scout, std::uint64_t size_bytes)
        : size_bytes_(size_bytes), scout_(std::move(scout)) {}

    // Whether the start of `range` (not empty) reads as zero, and for how much of the range that
    // answer holds. Ranges are asked for in ascending order.
    struct Known {
        Range range;
        bool zero = false;
    };
    [[nodiscard]] Known at(Range range);

  private:
    const bool all_ = false;
    const std::uint64_t size_bytes_ = 0;
    const std::unique_ptr<Scout> scout_;
    std::vector<Extent> window_;
    std::size_t next_ = 0;  // the first extent of the window that may matter
};

// One sweep over a disk: looks ahead for what is to be done and hands it to the workers.
//
// Threads: one at a time.
class Pass {
  public:
    struct Options {
        std::uint64_t request_bytes = 256 << 10;
        bool only_dirty = false;      // by what the source's scout says
        bool zeroes_as_data = false;  // holes too are sent as data
        // What is done with data: copy, compare or update.
        Piece::Kind with_data = Piece::Kind::copy;
        bool checkpoints = false;  // the target is flushed now and then
    };
    struct Parts {
        const Side& source;
        const Side& target;
        WorkQueue& queue;
        WorkCounters& counters;
        BlockMap& map;
        const Cancellation& cancellation;
        // Called by run() and flush() again and again while they wait, some times a second; throws
        // to end them early. May be empty.
        std::function<void()> tick;
        // Makes an end of what is under way, so that a cancelled job can end.
        std::function<void()> abandon;
    };

    Pass(Parts parts, Options options);

    // Does it all. Nothing is under way when it returns or throws: JobError (ConnectionLost) with
    // the first failure, Cancelled, or what `tick` threw. A server that stands still can delay
    // that; once the job is cancelled by no more than kDrainLimit, when its connections are given
    // up.
    void run(Scout& source, TargetZeroes& target_zeroes);
    // Makes the target durable; the same errors. Does nothing where the target cannot flush.
    void flush();

  private:
    class Stopped {};  // a worker has failed
    static constexpr std::chrono::seconds kDrainLimit{5};

    [[nodiscard]] bool changes_target() const noexcept {
        return options_.with_data != Piece::Kind::compare;
    }
    void scan(Scout& source, TargetZeroes& target_zeroes);
    void handle(Range range, bool zero, TargetZeroes& target_zeroes);
    void add_data(Range range, TargetZeroes& target_zeroes);
    void finish_data(TargetZeroes& target_zeroes);
    void handle_zero(Range range, TargetZeroes& target_zeroes);
    void handle_data(Range range, TargetZeroes& target_zeroes);
    void push(const Piece& piece);
    void look_around();
    void drain();
    [[nodiscard]] WorkFailure fail_and_drain(const std::string& sentence);

    const Parts parts_;
    const Options options_;
    const std::uint64_t unit_bytes_;  // zeroing begins and ends on multiples of it
    Range data_;                      // found last; what comes next may join it
    std::chrono::steady_clock::time_point next_tick_;
};

}  // namespace nbdm
