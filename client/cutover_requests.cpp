// SPDX-License-Identifier: Apache-2.0
#include "client/cutover_requests.h"

#include <algorithm>

#include "iothread/event_fd.h"

namespace nbdm {

std::uint64_t CutoverRequests::add() {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
    return ++requested_;
}

void CutoverRequests::withdraw() {
    const std::lock_guard lock(mutex_);
    answered_ = requested_;
}

bool CutoverRequests::pending() const {
    const std::lock_guard lock(mutex_);
    return requested_ > answered_;
}

std::optional<CutoverOutcome> CutoverRequests::outcome() const {
    const std::lock_guard lock(mutex_);
    return outcome_;
}

void CutoverRequests::answer(bool done, const std::string& line) {
    {
        const std::lock_guard lock(mutex_);
        answered_ = requested_;
        outcome_ = {.ticket = answered_, .done = done, .line = line};
    }
    ring_event_fd(outcome_fd_);
}

void CutoverRequests::wait(std::chrono::milliseconds limit, const Cancellation& cancellation) {
    using Clock = std::chrono::steady_clock;
    constexpr std::chrono::milliseconds kStep{50};
    const Clock::time_point end = Clock::now() + limit;
    std::unique_lock lock(mutex_);
    while (requested_ == answered_ && !cancellation.requested() && Clock::now() < end) {
        changed_.wait_for(lock, std::min<Clock::duration>(kStep, end - Clock::now()));
    }
    if (cancellation.requested()) {
        throw Cancelled();
    }
}

}  // namespace nbdm
