// SPDX-License-Identifier: Apache-2.0
#include "client/work_queue.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <numeric>
#include <utility>

namespace nbdm {

void WorkQueue::begin_pass(bool with_checkpoints, std::uint64_t unit_bytes) {
    const std::lock_guard lock(mutex_);
    assert(unfinished_ == 0);
    with_checkpoints_ = with_checkpoints;
    unit_bytes_ = unit_bytes;
    pushed_to_ = covered_to_ = durable_to_ = 0;
}

std::uint64_t WorkQueue::durable_to() const {
    const std::lock_guard lock(mutex_);
    return durable_to_;
}

WorkQueue::Pushed WorkQueue::push(const Piece& piece, std::chrono::milliseconds step) {
    std::unique_lock lock(mutex_);
    const bool room = changed_.wait_for(lock, step, [this] {
        // Whoever looks ahead is paused, too.
        return failure_ || queued_.size() < (pace_.stands() ? 1 : kMaxQueued);
    });
    if (failure_) {
        return Pushed::failed;
    }
    if (!room) {
        return Pushed::full;
    }
    if (piece.kind == Piece::Kind::flush) {
        push_flush_locked(piece);
        return Pushed::taken;
    }
    queued_.push_back(piece);
    ++unfinished_;
    pushed_to_ = piece.range.end();
    wake_one_locked();
    return Pushed::taken;
}

void WorkQueue::push_flush_locked(const Piece& flush) {
    flushes_.push_back(flush);
    ++unfinished_;
    // Whether it is idle or not: it looks when it has room.
    if (flusher_ != nullptr) {
        flusher_->wake();
    }
}

void WorkQueue::use_workers(unsigned workers) {
    const std::lock_guard lock(mutex_);
    window_.set_workers(workers);
}

bool WorkQueue::has_room_locked(IoThread& worker) const {
    const auto mine = shares_.find(&worker);
    const unsigned pieces = mine != shares_.end() ? mine->second.pieces : 0;
    if (pace_.urgent()) {
        return pieces < window_.most_per_worker();
    }
    // When there are fewer places than there were, the first so many workers keep theirs.
    const auto before =
        std::count_if(shares_.begin(), mine, [](const auto& each) { return !each.second.leaving; });
    return under_way_locked() < window_.pieces() && pieces < window_.per_worker() &&
           before < std::ptrdiff_t{window_.workers()};
}

unsigned WorkQueue::under_way_locked() const {
    return std::accumulate(shares_.begin(), shares_.end(), 0U, [](unsigned sum, const auto& each) {
        return sum + (each.second.leaving ? 0 : each.second.pieces);
    });
}

// One worker per piece, the others stay asleep: rather one that works already, unless all are to.
void WorkQueue::wake_one_locked() {
    const bool all = pace_.urgent();
    if (!all && under_way_locked() >= window_.pieces()) {
        return;
    }
    auto chosen = idle_.end();
    for (auto each = idle_.begin(); each != idle_.end(); ++each) {
        if (has_room_locked(**each)) {
            chosen = each;
            if (has_share_locked(**each) != all) {
                break;
            }
        }
    }
    if (chosen != idle_.end()) {
        (*chosen)->wake();
        idle_.erase(chosen);
    }
}

void WorkQueue::leave(IoThread& worker) {
    const std::lock_guard lock(mutex_);
    std::erase(idle_, &worker);
    if (flusher_ == &worker) {
        flusher_ = nullptr;
    }
    if (const auto share = shares_.find(&worker); share != shares_.end()) {
        share->second.leaving = true;
        give_up_share_locked(worker);
    }
    if (!queued_.empty()) {
        wake_one_locked();
    }
}

WorkQueue::Popped WorkQueue::try_pop(IoThread& worker, Takes takes) {
    const std::lock_guard lock(mutex_);
    if (takes == Takes::all) {
        flusher_ = &worker;
        if (!flushes_.empty()) {
            const Piece flush = flushes_.front();
            flushes_.pop_front();
            return {.piece = flush, .not_before = {}};
        }
    }
    if (queued_.empty() || !has_room_locked(worker)) {
        give_up_share_locked(worker);
        if (queued_.empty()) {
            window_.interrupted();
        } else {
            wake_one_locked();
        }
        if (std::find(idle_.begin(), idle_.end(), &worker) == idle_.end()) {
            idle_.push_back(&worker);
        }
        return {};
    }
    const std::uint64_t largest = pace_.largest_request();
    const Piece piece = next_piece_locked(largest);
    const std::uint64_t moves = piece.kind == Piece::Kind::alike ? 0 : piece.range.length;
    if (const auto not_before = pace_.admit(moves, Clock::now(), largest)) {
        pace_.stands() || pace_.urgent() ? window_.interrupted() : window_.limited();
        return {.piece = {}, .not_before = not_before};
    }
    if (Range& rest = queued_.front().range; rest.end() > piece.range.end()) {
        rest = Range::from_to(piece.range.end(), rest.end());
        ++unfinished_;
    } else {
        queued_.pop_front();
    }
    begun_.insert(piece.range.offset);
    ++shares_[&worker].pieces;
    if (queued_.size() == kMaxQueued / 2) {
        changed_.notify_all();
    }
    return {.piece = piece, .not_before = {}};
}

Piece WorkQueue::next_piece_locked(std::uint64_t largest) const {
    Piece piece = queued_.front();
    if (piece.kind != Piece::Kind::alike) {
        const std::uint64_t most = std::max(std::bit_floor(largest), unit_bytes_);
        const std::uint64_t cut = align_down(piece.range.offset, most) + most;
        piece.range = piece.range.first(cut - piece.range.offset);
    }
    return piece;
}

void WorkQueue::finished(IoThread& worker, const Piece& piece) {
    const std::lock_guard lock(mutex_);
    assert(unfinished_ > 0);
    const Clock::time_point now = Clock::now();
    if (piece.kind != Piece::Kind::flush) {
        begun_.erase(piece.range.offset);
        --shares_.at(&worker).pieces;
        if (pace_.urgent()) {
            window_.interrupted();
        } else if (piece.kind != Piece::Kind::alike) {
            window_.finished(piece.kind != Piece::Kind::zero ? piece.range.length : 0, now);
        }
    } else if (!piece.range.empty() && !failure_) {
        flushing_ = false;
        durable_to_ = piece.range.end();
        next_flush_ = now + kFlushSpacing * (now - flush_begun_);
    }
    if (with_checkpoints_ && !failure_) {
        add_checkpoint_locked(now);
    }
    if (--unfinished_ == 0) {
        changed_.notify_all();
    }
}

void WorkQueue::give_up_share_locked(IoThread& worker) {
    const auto share = shares_.find(&worker);
    if (share != shares_.end() && share->second.pieces == 0) {
        shares_.erase(share);
    }
}

// A piece that was not pushed yet lies behind all that were.
std::uint64_t WorkQueue::finished_to_locked() const {
    std::uint64_t first = pushed_to_;
    if (!begun_.empty()) {
        first = std::min(first, *begun_.begin());
    }
    return queued_.empty() ? first : std::min(first, queued_.front().range.offset);
}

// What it covers was answered before it begins; a flush on one connection covers the others' too.
void WorkQueue::add_checkpoint_locked(Clock::time_point now) {
    const std::uint64_t finished_to = finished_to_locked();
    if (flushing_ || now < next_flush_ || finished_to < covered_to_ + kCheckpointBytes) {
        return;
    }
    flushing_ = true;
    flush_begun_ = now;
    covered_to_ = finished_to;
    push_flush_locked({.kind = Piece::Kind::flush, .range = {0, finished_to}});
}

void WorkQueue::fail(WorkFailure failure) {
    const std::lock_guard lock(mutex_);
    if (!failure_) {
        failure_ = std::move(failure);
    }
    flushing_ = false;
    unfinished_ -= queued_.size() + flushes_.size();
    queued_.clear();
    flushes_.clear();
    changed_.notify_all();
}

bool WorkQueue::wait_until_idle(std::chrono::milliseconds step) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, step, [this] { return unfinished_ == 0; });
}

std::optional<WorkFailure> WorkQueue::take_failure() {
    const std::lock_guard lock(mutex_);
    return std::exchange(failure_, std::nullopt);
}

bool WorkQueue::failed() const {
    const std::lock_guard lock(mutex_);
    return failure_.has_value();
}

}  // namespace nbdm
