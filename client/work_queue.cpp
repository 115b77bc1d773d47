// SPDX-License-Identifier: Apache-2.0
#include "client/work_queue.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace nbdm {

WorkQueue::Pushed WorkQueue::push(const Piece& piece, std::chrono::milliseconds step) {
    std::unique_lock lock(mutex_);
    const bool room =
        changed_.wait_for(lock, step, [this] { return failure_ || queued_.size() < kMaxQueued; });
    if (failure_) {
        return Pushed::failed;
    }
    if (!room) {
        return Pushed::full;
    }
    queued_.push_back(piece);
    ++unfinished_;
    wake_one_locked();
    return Pushed::taken;
}

// One worker per piece: the others stay asleep.
void WorkQueue::wake_one_locked() {
    if (!idle_.empty()) {
        idle_.back()->wake();
        idle_.pop_back();
    }
}

void WorkQueue::leave(IoThread& idle) {
    const std::lock_guard lock(mutex_);
    std::erase(idle_, &idle);
    if (!queued_.empty()) {
        wake_one_locked();
    }
}

WorkQueue::Popped WorkQueue::try_pop(IoThread& idle) {
    const std::lock_guard lock(mutex_);
    if (queued_.empty()) {
        if (std::find(idle_.begin(), idle_.end(), &idle) == idle_.end()) {
            idle_.push_back(&idle);
        }
        return {};
    }
    const Piece piece = queued_.front();
    if (piece.kind != Piece::Kind::flush) {
        if (const auto not_before = pace_.admit(piece.range.length, Clock::now())) {
            return {.piece = {}, .not_before = not_before};
        }
    }
    queued_.pop_front();
    if (queued_.size() == kMaxQueued / 2) {
        changed_.notify_all();
    }
    return {.piece = piece, .not_before = {}};
}

void WorkQueue::finished() {
    const std::lock_guard lock(mutex_);
    assert(unfinished_ > 0);
    if (--unfinished_ == 0) {
        changed_.notify_all();
    }
}

void WorkQueue::fail(const std::string& sentence) {
    const std::lock_guard lock(mutex_);
    if (!failure_) {
        failure_ = sentence;
    }
    unfinished_ -= queued_.size();
    queued_.clear();
    changed_.notify_all();
}

bool WorkQueue::wait_until_idle(std::chrono::milliseconds step) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, step, [this] { return unfinished_ == 0; });
}

std::optional<std::string> WorkQueue::take_failure() {
    const std::lock_guard lock(mutex_);
    return std::exchange(failure_, std::nullopt);
}

bool WorkQueue::failed() const {
    const std::lock_guard lock(mutex_);
    return failure_.has_value();
}

}  // namespace nbdm
