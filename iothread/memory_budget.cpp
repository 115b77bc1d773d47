// SPDX-License-Identifier: Apache-2.0
#include "iothread/memory_budget.h"

#include <cassert>

#include "iothread/io_thread.h"

namespace nbdm {

MemoryBudget::Member::Member(MemoryBudget& budget, IoThread& thread)
    : budget_(budget), thread_(thread) {
    const std::lock_guard lock(budget_.mutex_);
    budget_.members_.push_back(this);
}

MemoryBudget::Member::~Member() {
    stop_waiting();
    const std::lock_guard lock(budget_.mutex_);
    assert(taken_bytes_ == 0);
    budget_.members_.remove(this);
}

bool MemoryBudget::Member::take(std::size_t bytes) noexcept {
    const std::lock_guard lock(budget_.mutex_);
    if (budget_.fits_locked(*this, bytes)) {
        taken_bytes_ += bytes;
        budget_.taken_bytes_.fetch_add(bytes, std::memory_order_relaxed);
        budget_.small_taken_bytes_ += bytes <= kSmallBytes ? bytes : 0;
        budget_.stop_waiting_locked(*this);
        return true;
    }
    wanted_bytes_ = bytes;
    if (!waits_) {
        waits_ = true;
        budget_.waiting_.push_back(this);
        budget_.waiting_count_.fetch_add(1, std::memory_order_relaxed);
        // What they keep they give back, and who does not move is noticed.
        for (const Member* each : budget_.members_) {
            if (each != this && each->taken_bytes_ > 0) {
                each->thread_.wake();
            }
        }
    }
    return false;
}

void MemoryBudget::Member::give(std::size_t bytes) noexcept {
    const std::lock_guard lock(budget_.mutex_);
    assert(taken_bytes_ >= bytes);
    taken_bytes_ -= bytes;
    budget_.taken_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    budget_.small_taken_bytes_ -= bytes <= kSmallBytes ? bytes : 0;
    for (const Member* each : budget_.waiting_) {
        if (budget_.fits_locked(*each, each->wanted_bytes_)) {
            each->thread_.wake();
        }
    }
}

void MemoryBudget::Member::stop_waiting() noexcept {
    if (waits_) {
        const std::lock_guard lock(budget_.mutex_);
        budget_.stop_waiting_locked(*this);
    }
}

void MemoryBudget::stop_waiting_locked(Member& member) noexcept {
    if (!member.waits_) {
        return;
    }
    member.waits_ = false;
    waiting_.remove(&member);
    waiting_count_.fetch_sub(1, std::memory_order_relaxed);
    // It is the next one's turn.
    for (const Member* each : waiting_) {
        if (fits_locked(*each, each->wanted_bytes_)) {
            each->thread_.wake();
        }
    }
}

bool MemoryBudget::fits_locked(const Member& member, std::size_t bytes) const noexcept {
    const std::size_t quarter = limit_bytes_ / 4;
    const std::size_t taken = taken_bytes_.load(std::memory_order_relaxed);
    const bool small = bytes <= kSmallBytes;
    if (taken + bytes > limit_bytes_ ||
        (!small && taken - small_taken_bytes_ + bytes > limit_bytes_ - quarter)) {
        return false;
    }
    if (waiting_.empty() || waiting_.front() == &member) {
        return true;
    }
    // Another one's turn: what is large waits behind it, what is small too when that is small.
    return small && waiting_.front()->wanted_bytes_ > kSmallBytes &&
           small_taken_bytes_ + bytes <= quarter;
}

}  // namespace nbdm
