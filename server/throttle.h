// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

namespace nbdm {

// Slows the writers of an export down, so that a mirror can catch up with them: a write begins
// somewhat later than it has come, never by more than kMaxDelay. Nothing is refused or reordered
// by it that would not be without.
//
// Threads: begins_at() by any iothread; the others by the main thread.
class Throttle {
  public:
    using Clock = std::chrono::steady_clock;

    static constexpr std::chrono::microseconds kMaxDelay{50'000};

    // Until then, or for good without an end.
    using End = std::optional<Clock::time_point>;
    // Each write by as much.
    void delay(std::chrono::microseconds each, End end) noexcept;
    // By as much as keeps all of them together below this rate, as far as that can be had.
    void limit(std::uint64_t bytes_per_s, End end) noexcept;
    void stop() noexcept;

    // When a write that comes now is to begin.
    [[nodiscard]] Clock::time_point begins_at(std::uint64_t bytes, Clock::time_point now) noexcept;

    // Whether it is in force.
    [[nodiscard]] bool slows(Clock::time_point now) const noexcept {
        return now.time_since_epoch().count() < end_.load(std::memory_order_acquire);
    }
    // What is in force; 0: not that.
    struct Setting {
        std::chrono::microseconds delay{0};
        std::uint64_t bytes_per_s = 0;
    };
    [[nodiscard]] Setting setting(Clock::time_point now) const noexcept;

  private:
    static constexpr Clock::rep kOff = 0;
    void start(Clock::rep delay, std::uint64_t bytes_per_s, End end) noexcept;

    // Shared (atomic), in the clock's ticks. A writer that sees a part of a change is late or early
    // once, by no more than kMaxDelay.
    std::atomic<Clock::rep> end_{kOff};
    std::atomic<Clock::rep> delay_{0};
    std::atomic<std::uint64_t> bytes_per_s_{0};  // 0: the delay counts
    std::atomic<Clock::rep> next_{0};  // when what was admitted so far is through, at the rate
};

}  // namespace nbdm
