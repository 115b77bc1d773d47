// SPDX-License-Identifier: Apache-2.0
#include "client/pace.h"

#include <algorithm>

namespace nbdm {

namespace {

// What a late worker may catch up on.
constexpr std::chrono::milliseconds kSlack{50};
// How often one that waits asks at least.
constexpr std::chrono::milliseconds kAskAgain{100};
// A request is at most what the limit admits in this time.
constexpr std::uint64_t kRequestsPerSecond = 10;

}  // namespace

void Pace::set_rate(std::optional<std::uint64_t> bytes_per_s) {
    const std::lock_guard lock(mutex_);
    rate_ = bytes_per_s;
    // What was admitted at another rate is no debt at the new one.
    free_at_ = {};
}

std::optional<std::uint64_t> Pace::rate() const {
    const std::lock_guard lock(mutex_);
    return rate_;
}

void Pace::set_paused(bool paused) {
    const std::lock_guard lock(mutex_);
    paused_ = paused;
}

bool Pace::urgent() const {
    const std::lock_guard lock(mutex_);
    return urgent_;
}

void Pace::set_urgent(bool urgent) {
    const std::lock_guard lock(mutex_);
    urgent_ = urgent;
}

bool Pace::stands() const {
    const std::lock_guard lock(mutex_);
    return stands_locked();
}

std::optional<Pace::Clock::time_point> Pace::admit(std::uint64_t bytes, Clock::time_point now,
                                                   std::uint64_t largest) {
    const std::lock_guard lock(mutex_);
    if (stands_locked()) {
        return now + kAskAgain;
    }
    if (largest != 0 && largest != largest_request_locked()) {
        return now;
    }
    if (!rate_) {
        return std::nullopt;
    }
    if (free_at_ > now) {
        // Not later: the limit may be changed meanwhile.
        return std::min(free_at_, now + kAskAgain);
    }
    const std::chrono::duration<double> time(static_cast<double>(bytes) /
                                             static_cast<double>(*rate_));
    free_at_ = std::max(free_at_, now - kSlack) + std::chrono::duration_cast<Clock::duration>(time);
    return std::nullopt;
}

std::uint64_t Pace::largest_request() const {
    const std::lock_guard lock(mutex_);
    return largest_request_locked();
}

std::uint64_t Pace::largest_request_locked() const {
    return rate_ ? *rate_ / kRequestsPerSecond : UINT64_MAX;
}

}  // namespace nbdm
