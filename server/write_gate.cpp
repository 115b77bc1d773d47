// SPDX-License-Identifier: Apache-2.0
#include "server/write_gate.h"

#include <algorithm>
#include <cassert>
#include <chrono>

#include "iothread/event_fd.h"

namespace nbdm {

namespace {

std::uint64_t now_ns() noexcept {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                          std::chrono::steady_clock::now().time_since_epoch())
                                          .count());
}

}  // namespace

WriteGate::Lane& WriteGate::attach(IoThread& thread) {
    const std::lock_guard lock(lanes_mutex_);
    Lane& lane = lanes_.emplace_back();
    lane.thread = &thread;
    return lane;
}

void WriteGate::detach(Lane& lane) noexcept {
    const std::lock_guard lock(lanes_mutex_);
    assert(lane.in_flight.load() == 0);
    lanes_.remove_if([&](const Lane& other) { return &other == &lane; });
}

WriteGate::Entry WriteGate::enter(Lane& lane) noexcept {
    lane.in_flight.fetch_add(1, std::memory_order_seq_cst);
    const std::uint32_t shut = shut_.load(std::memory_order_seq_cst);
    if (shut == 0) {
        return Entry::entered;
    }
    leave(lane);
    return refuse(shut);
}

WriteGate::Entry WriteGate::refuse(std::uint32_t shut) noexcept {
    if ((shut & kRetired) != 0) {
        return Entry::retired;
    }
    if ((shut & kHeld) != 0) {
        note_kept_waiting();
        return Entry::held;
    }
    return Entry::shut;
}

void WriteGate::note_kept_waiting() noexcept {
    std::uint64_t none = 0;
    first_parked_ns_.compare_exchange_strong(none, now_ns());
}

void WriteGate::leave(Lane& lane) noexcept {
    const std::uint32_t before = lane.in_flight.fetch_sub(1, std::memory_order_seq_cst);
    assert(before > 0);
    if (before == 1) {
        const std::uint32_t shut = shut_.load(std::memory_order_seq_cst);
        if (shut != 0) {
            emptied_.fetch_add(1, std::memory_order_seq_cst);
            emptied_.notify_all();
        }
        if ((shut & kHeld) != 0) {
            ring_event_fd(drained_fd_);
        }
    }
}

WriteGate::Entry WriteGate::enter_alone(Lane& lane) noexcept {
    assert(lane.in_flight.load() == 0);
    alone_.lock();
    std::uint32_t shut = shut_.load(std::memory_order_seq_cst);
    if (shut == 0) {
        // Counted in before the gate is looked at, as in enter(): a hold either is seen here or
        // waits for this write.
        lane.in_flight.fetch_add(1, std::memory_order_seq_cst);
        shut = shut_.fetch_or(kAlone, std::memory_order_seq_cst);
        if (shut != 0) {
            shut_.fetch_and(~kAlone, std::memory_order_seq_cst);
            leave(lane);
            wake_all();  // others may have found only this shut meanwhile
        }
    }
    if (shut != 0) {
        alone_.unlock();
        return refuse(shut);
    }
    // A lane that comes now finds the gate shut; one that empties says so after this look at
    // emptied_. The lanes' mutex is not kept meanwhile: the main thread needs it.
    for (;;) {
        const std::uint32_t emptied = emptied_.load(std::memory_order_seq_cst);
        if (is_empty_but_for(&lane)) {
            break;
        }
        emptied_.wait(emptied, std::memory_order_seq_cst);
    }
    return Entry::entered;
}

void WriteGate::leave_alone(Lane& lane) noexcept {
    shut_.fetch_and(~kAlone, std::memory_order_seq_cst);
    leave(lane);
    alone_.unlock();
    wake_all();
}

void WriteGate::hold() noexcept {
    first_parked_ns_.store(0);
    shut_.fetch_or(kHeld, std::memory_order_seq_cst);
}

bool WriteGate::drained() const noexcept {
    return is_empty_but_for(nullptr);
}

bool WriteGate::is_empty_but_for(const Lane* lane) const noexcept {
    const std::lock_guard lock(lanes_mutex_);
    return std::all_of(lanes_.begin(), lanes_.end(), [&](const Lane& each) {
        return &each == lane || each.in_flight.load(std::memory_order_seq_cst) == 0;
    });
}

std::uint64_t WriteGate::release() noexcept {
    const std::uint64_t first_parked_ns = first_parked_ns_.exchange(0);
    shut_.fetch_and(~kHeld, std::memory_order_seq_cst);
    wake_all();
    return first_parked_ns == 0 ? 0 : now_ns() - first_parked_ns;
}

std::uint64_t WriteGate::retire() noexcept {
    shut_.fetch_or(kRetired, std::memory_order_seq_cst);
    return release();
}

void WriteGate::wake_all() noexcept {
    const std::lock_guard lock(lanes_mutex_);
    for (Lane& lane : lanes_) {
        lane.thread->wake();
    }
}

}  // namespace nbdm
