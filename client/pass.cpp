// SPDX-License-Identifier: Apache-2.0
#include "client/pass.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace nbdm {

namespace {

// One zeroing request: large, so that a hole costs little; aligned to what servers like.
constexpr std::uint64_t kMaxZeroBytes = std::uint64_t{1} << 30;
// Extents are cut to this, so that no block is zeroed in part and read in part.
constexpr std::uint64_t kMinUnitBytes = 4096;
// Short against the downtime that a cutover is allowed, whose end a tick looks for.
constexpr std::chrono::milliseconds kTickInterval{20};

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
            return {range.first(extent.range.end() - range.offset), extent.zero};
        }
        // From here to the end: what lies ahead will be asked for next.
        window_ = scout_->extents(Range::from_to(range.offset, size_bytes_));
        next_ = 0;
    }
}

Pass::Pass(Parts parts, Options options)
    : parts_(std::move(parts)),
      options_(options),
      unit_bytes_(std::bit_ceil(std::max({kMinUnitBytes, parts_.source.traits().alignment,
                                          parts_.target.traits().alignment}))) {}

void Pass::run(Scout& source, TargetZeroes& target_zeroes) {
    try {
        scan(source, target_zeroes);
    } catch (const Stopped&) {  // drain() says why
    } catch (const std::exception& error) {
        parts_.queue.fail(error.what());
        while (!parts_.queue.wait_until_idle(kTickInterval)) {
        }
        [[maybe_unused]] const auto known = parts_.queue.take_failure();
        throw;
    }
    drain();
}

void Pass::flush() {
    if (!parts_.target.traits().can_flush) {
        return;
    }
    // The queue is empty here: there is room.
    push({.kind = Piece::Kind::flush, .range = {}});
    drain();
}

// Waits for what is under way, and passes a failure on.
void Pass::drain() {
    std::exception_ptr stopped;
    while (!parts_.queue.wait_until_idle(kTickInterval)) {
        if (stopped) {
            continue;
        }
        try {
            look_around();
        } catch (const std::exception& error) {
            stopped = std::current_exception();
            parts_.queue.fail(error.what());
        }
    }
    const std::optional<std::string> failure = parts_.queue.take_failure();
    if (stopped) {
        std::rethrow_exception(stopped);
    }
    if (failure) {
        throw JobError(*failure);
    }
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
    // A stretch that waits for its neighbour: extents that are alike are handled as one, and a
    // unit that is zero only in part is handled as data.
    Range run;
    bool run_zero = false;
    std::uint64_t at = 0;
    while (at < size) {
        look_around();
        for (const Extent& extent : source.extents(Range::from_to(at, size))) {
            at = extent.range.end();
            if (options_.only_dirty && !extent.dirty) {
                handle(run, run_zero, target_zeroes);
                run = {};
                continue;
            }
            Range range = extent.range;
            bool zero = extent.zero && !options_.zeroes_as_data;
            if (!run.empty() && run.end() == range.offset && run_zero == zero) {
                run.length += range.length;
                continue;
            }
            handle(run, run_zero, target_zeroes);
            run = range;
            run_zero = zero;
        }
    }
    handle(run, run_zero, target_zeroes);
}

void Pass::handle(Range range, bool zero, TargetZeroes& target_zeroes) {
    if (range.empty()) {
        return;
    }
    if (!zero) {
        handle_data(range, target_zeroes);
        return;
    }
    // The units at the ends are zero only in part, but for the end of the disk.
    const std::uint64_t size = parts_.source.traits().size_bytes;
    const std::uint64_t begin = align_up(range.offset, unit_bytes_);
    const std::uint64_t end =
        range.end() == size && is_aligned(size, parts_.target.traits().alignment)
            ? size
            : align_down(range.end(), unit_bytes_);
    if (begin >= end) {
        handle_data(range, target_zeroes);
        return;
    }
    handle_data(Range::from_to(range.offset, begin), target_zeroes);
    handle_zero(Range::from_to(begin, end), target_zeroes);
    handle_data(Range::from_to(end, range.end()), target_zeroes);
}

void Pass::handle_zero(Range range, TargetZeroes& target_zeroes) {
    while (!range.empty()) {
        look_around();
        const TargetZeroes::Known known = target_zeroes.at(range);
        Range part = known.range;
        if (known.zero) {
            parts_.counters.moved_bytes.fetch_add(part.length, std::memory_order_relaxed);
        } else if (options_.compare || !parts_.target.traits().can_zero) {
            // The zeroes are read from the source like data, and written or compared.
            part = part.first(options_.request_bytes);
            push({.kind = options_.compare ? Piece::Kind::compare : Piece::Kind::copy,
                  .range = part});
        } else {
            // Known stretches end where the target says, which need not be on a unit.
            const std::uint64_t next = align_down(part.offset + kMaxZeroBytes, kMaxZeroBytes);
            part = Range::from_to(part.offset, std::min(next, align_up(part.end(), unit_bytes_)));
            part = Range::from_to(part.offset, std::min(part.end(), range.end()));
            push({.kind = Piece::Kind::zero, .range = part});
        }
        range = range.after(part.length);
        // Stay on units, so that every zeroing request does.
        if (known.zero && !range.empty() && !is_aligned(range.offset, unit_bytes_)) {
            const Range rest = Range::from_to(range.offset, align_up(range.offset, unit_bytes_));
            handle_data(rest.first(range.length), target_zeroes);
            range = range.after(rest.length);
        }
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
        push({.kind = options_.compare ? Piece::Kind::compare : Piece::Kind::copy,
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
