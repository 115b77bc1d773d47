// SPDX-License-Identifier: Apache-2.0
#include "server/throttle.h"

#include <algorithm>

namespace nbdm {

namespace {

using Clock = Throttle::Clock;

constexpr Clock::rep kMaxTicks = Clock::duration(Throttle::kMaxDelay).count();

}  // namespace

void Throttle::delay(std::chrono::microseconds each, End end) noexcept {
    start(Clock::duration(each).count(), 0, end);
}

void Throttle::limit(std::uint64_t bytes_per_s, End end) noexcept {
    start(0, bytes_per_s, end);
}

void Throttle::start(Clock::rep delay, std::uint64_t bytes_per_s, End end) noexcept {
    delay_.store(std::min(delay, kMaxTicks), std::memory_order_relaxed);
    bytes_per_s_.store(bytes_per_s, std::memory_order_relaxed);
    end_.store(end.value_or(Clock::time_point::max()).time_since_epoch().count(),
               std::memory_order_release);
}

void Throttle::stop() noexcept {
    end_.store(kOff, std::memory_order_release);
}

Clock::time_point Throttle::begins_at(std::uint64_t bytes, Clock::time_point now) noexcept {
    const Clock::rep at = now.time_since_epoch().count();
    if (at >= end_.load(std::memory_order_acquire)) {
        return now;
    }
    const std::uint64_t rate = bytes_per_s_.load(std::memory_order_relaxed);
    if (rate == 0) {
        return now + Clock::duration(delay_.load(std::memory_order_relaxed));
    }
    const auto takes = static_cast<Clock::rep>(static_cast<double>(bytes) /
                                               static_cast<double>(rate) * Clock::period::den);
    Clock::rep next = next_.load(std::memory_order_relaxed);
    Clock::rep begin = 0;
    do {
        begin = std::clamp(next, at, at + kMaxTicks);
    } while (!next_.compare_exchange_weak(next, begin + takes, std::memory_order_relaxed));
    return Clock::time_point(Clock::duration(begin));
}

Throttle::Setting Throttle::setting(Clock::time_point now) const noexcept {
    if (now.time_since_epoch().count() >= end_.load(std::memory_order_acquire)) {
        return {};
    }
    return {.delay = std::chrono::duration_cast<std::chrono::microseconds>(
                Clock::duration(delay_.load(std::memory_order_relaxed))),
            .bytes_per_s = bytes_per_s_.load(std::memory_order_relaxed)};
}

}  // namespace nbdm
