// SPDX-License-Identifier: Apache-2.0
#include "client/pass.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

namespace nbdm {

namespace {

// One zeroing request: large, so that a hole costs little; aligned to what servers like.
constexpr std::uint64_t kMaxZeroBytes = std::uint64_t{1} << 30;
// Extents are cut to this, so that no block is zeroed in part and read in part.
constexpr std::uint64_t kMinUnitBytes = 4096;
// Short against the downtime that a cutover is allowed, whose end a tick looks for.
constexpr std::chrono::milliseconds kTickInterval{20};

BlockMap::Found what_is_found(const Extent& extent, bool wanted, bool zero) {
    if (wanted) {
        return BlockMap::Found::wanted;
    }
    if (extent.allocation == Allocation::unknown) {
        return BlockMap::Found::neither_known;
    }
    return zero ? BlockMap::Found::hole : BlockMap::Found::data;
}

}  // namespace

TargetZeroes::Known TargetZeroes::at(Range range) {
    if (!scout_) {
        return {range, all_};
    }
    for (;;) {
        while (next_ < window_.size() && window_[next_].range.end() <= range.offset) {
            ++next_;
        }
        if (next_ < window_.size()) {
            const Extent& extent = window_[next_];
            return {range.first(extent.range.end() - range.offset), extent.zero()};
        }
        // From here to the end: what lies ahead will be asked for next.
        window_ = scout_->extents(Range::from_to(range.offset, size_bytes_));
        next_ = 0;
    }
}

Pass::Pass(Parts parts, Options options)
    : parts_(std::move(parts)),
      options_(options),
      unit_bytes_(std::bit_ceil(std::max(
          {kMinUnitBytes, parts_.source.traits().alignment, parts_.target.traits().alignment}))) {}

void Pass::run(Scout& source, TargetZeroes& target_zeroes) {
    parts_.queue.begin_pass(options_.checkpoints && parts_.target.traits().can_flush, unit_bytes_);
    try {
        scan(source, target_zeroes);
    } catch (const Stopped&) {  // drain() says why
    } catch (const std::exception& error) {
        [[maybe_unused]] const auto failure = fail_and_drain(error.what());
        throw;
    }
    drain();
}

void Pass::flush() {
    if (!parts_.target.traits().can_flush) {
        return;
    }
    try {
        push({.kind = Piece::Kind::flush, .range = {}});
    } catch (const Stopped&) {  // drain() says why
    }
    drain();
}

// Waits for what is under way, and passes a failure on.
void Pass::drain() {
    try {
        while (!parts_.queue.wait_until_idle(kTickInterval)) {
            look_around();
            if (parts_.queue.failed()) {
                break;
            }
        }
    } catch (const std::exception& error) {
        [[maybe_unused]] const auto failure = fail_and_drain(error.what());
        throw;
    }
    if (parts_.queue.failed()) {
        const WorkFailure failure = fail_and_drain("");
        if (failure.connection_lost) {
            throw ConnectionLost(failure.sentence);
        }
        throw JobError(failure.sentence);
    }
}

// Stops the workers and waits for what they have begun. Returns the first failure: `sentence`, or
// what failed before.
WorkFailure Pass::fail_and_drain(const std::string& sentence) {
    parts_.queue.fail({.sentence = sentence});
    std::optional<std::chrono::steady_clock::time_point> deadline;
    bool abandoned = false;
    while (!parts_.queue.wait_until_idle(kTickInterval)) {
        const auto now = std::chrono::steady_clock::now();
        if (parts_.cancellation.requested() && !deadline) {
            deadline = now + kDrainLimit;
        }
        if (deadline && now >= *deadline && !abandoned) {
            abandoned = true;
            parts_.abandon();
        }
    }
    return *parts_.queue.take_failure();
}

void Pass::look_around() {
    if (parts_.cancellation.requested()) {
        throw Cancelled();
    }
    const auto now = std::chrono::steady_clock::now();
    if (parts_.tick && now >= next_tick_) {
        next_tick_ = now + kTickInterval;
        parts_.tick();
    }
}

void Pass::scan(Scout& source, TargetZeroes& target_zeroes) {
    const std::uint64_t size = parts_.source.traits().size_bytes;
    // Extents that are alike are handled as one, as far as they are known.
    Range run;
    bool run_zero = false;
    std::uint64_t at = 0;
    while (at < size) {
        look_around();
        const std::vector<Extent> extents = source.extents(Range::from_to(at, size));
        const auto now = std::chrono::steady_clock::now();
        for (const Extent& extent : extents) {
            at = extent.range.end();
            const bool zero = extent.zero() && !options_.zeroes_as_data;
            const bool wanted = !extent.alike && (extent.dirty || !options_.only_dirty);
            if (changes_target()) {
                parts_.map.found(extent.range, what_is_found(extent, wanted, zero), now);
            }
            if (wanted && !run.empty() && run.end() == extent.range.offset && run_zero == zero) {
                run.length += extent.range.length;
                continue;
            }
            handle(run, run_zero, target_zeroes);
            run = wanted ? extent.range : Range{};
            run_zero = zero;
            if (extent.alike) {
                finish_data(target_zeroes);
                push({.kind = Piece::Kind::alike, .range = extent.range});
            }
        }
        // What lies before the last whole request need not wait for the next answer.
        const std::uint64_t settled = align_down(run.end(), options_.request_bytes);
        if (!run.empty() && settled > run.offset) {
            handle(Range::from_to(run.offset, settled), run_zero, target_zeroes);
            run = Range::from_to(settled, run.end());
        }
    }
    handle(run, run_zero, target_zeroes);
    finish_data(target_zeroes);
}

// Zeroes are zeroed in whole units; a unit that is zero only in part joins the data beside it, so
// that data too begins and ends on units.
void Pass::handle(Range range, bool zero, TargetZeroes& target_zeroes) {
    if (range.empty()) {
        return;
    }
    const std::uint64_t begin = align_up(range.offset, unit_bytes_);
    // The disk's end counts as a unit's end.
    const std::uint64_t end = range.end() == parts_.source.traits().size_bytes
                                  ? range.end()
                                  : align_down(range.end(), unit_bytes_);
    if (!zero || begin >= end) {
        add_data(range, target_zeroes);
        return;
    }
    add_data(Range::from_to(range.offset, begin), target_zeroes);
    finish_data(target_zeroes);
    handle_zero(Range::from_to(begin, end), target_zeroes);
    add_data(Range::from_to(end, range.end()), target_zeroes);
}

void Pass::add_data(Range range, TargetZeroes& target_zeroes) {
    if (!data_.empty() && data_.end() != range.offset && !range.empty()) {
        finish_data(target_zeroes);
    }
    if (data_.empty()) {
        data_ = range;
    } else {
        data_.length += range.length;
    }
    // Whole requests are begun at once.
    const std::uint64_t settled = align_down(data_.end(), options_.request_bytes);
    if (settled > data_.offset) {
        handle_data(Range::from_to(data_.offset, settled), target_zeroes);
        data_ = Range::from_to(settled, data_.end());
    }
}

void Pass::finish_data(TargetZeroes& target_zeroes) {
    handle_data(std::exchange(data_, {}), target_zeroes);
}

void Pass::handle_zero(Range range, TargetZeroes& target_zeroes) {
    while (!range.empty()) {
        look_around();
        const TargetZeroes::Known known = target_zeroes.at(range);
        // What the target says need not end on a unit; a unit that is only zero in part is zeroed.
        const std::uint64_t known_end = known.range.end();
        const std::uint64_t whole_end =
            known_end == range.end() ? known_end : align_down(known_end, unit_bytes_);
        const bool skip = known.zero && whole_end > range.offset;
        const std::uint64_t end = skip ? whole_end : align_up(known_end, unit_bytes_);
        Range part = Range::from_to(range.offset, std::min(end, range.end()));
        if (skip) {
            parts_.counters.moved_bytes.fetch_add(part.length, std::memory_order_relaxed);
            if (changes_target()) {
                parts_.map.skipped(part);
            }
        } else if (!changes_target() || !parts_.target.traits().can_zero) {
            // The zeroes are read from the source like data.
            part = part.first(options_.request_bytes);
            push({.kind = options_.with_data, .range = part});
        } else {
            const std::uint64_t next = align_down(part.offset + kMaxZeroBytes, kMaxZeroBytes);
            part = Range::from_to(part.offset, std::min(next, part.end()));
            push({.kind = Piece::Kind::zero, .range = part});
        }
        range = range.after(part.length);
    }
}

void Pass::handle_data(Range range, TargetZeroes& target_zeroes) {
    while (!range.empty()) {
        look_around();
        // Cut at multiples of the request size: whole requests meet whole blocks.
        const std::uint64_t next =
            align_down(range.offset + options_.request_bytes, options_.request_bytes);
        const Range part = Range::from_to(range.offset, std::min(next, range.end()));
        const TargetZeroes::Known known = target_zeroes.at(part);
        push({.kind = options_.with_data,
              .range = part,
              .target_is_zero = known.zero && known.range == part});
        range = range.after(part.length);
    }
}

void Pass::push(const Piece& piece) {
    for (;;) {
        switch (parts_.queue.push(piece, kTickInterval)) {
            case WorkQueue::Pushed::taken:
                return;
            case WorkQueue::Pushed::full:
                look_around();
                break;
            case WorkQueue::Pushed::failed:
                throw Stopped();
        }
    }
}

}  // namespace nbdm
