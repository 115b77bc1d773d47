// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>

namespace nbdm {

// When the next piece of a job may begin: within its bandwidth limit, and not while it is paused.
//
// Threads: any.
class Pace {
  public:
    using Clock = std::chrono::steady_clock;

    // A lower limit than this would let a single request take minutes.
    static constexpr std::uint64_t kMinBytesPerSecond = 64 << 10;

    // Of everything that is copied or zeroed; nothing: no limit.
    void set_rate(std::optional<std::uint64_t> bytes_per_s);
    [[nodiscard]] std::optional<std::uint64_t> rate() const;
    // Paused, nothing more is admitted; what is under way goes on.
    void set_paused(bool paused);
    // Writers are held as long as it lives: a pause that comes meanwhile takes effect then.
    class Urgent {
      public:
        explicit Urgent(Pace& pace) : pace_(pace) { pace_.set_urgent(true); }
        Urgent(const Urgent&) = delete;
        Urgent& operator=(const Urgent&) = delete;
        ~Urgent() { pace_.set_urgent(false); }

      private:
        Pace& pace_;
    };
    [[nodiscard]] bool urgent() const;
    // Nothing is admitted, because of a pause.
    [[nodiscard]] bool stands() const;

    // Nothing: `bytes` are admitted. Otherwise ask again then: at once when `largest` (if not 0) is
    // not what largest_request() would say now.
    [[nodiscard]] std::optional<Clock::time_point> admit(std::uint64_t bytes, Clock::time_point now,
                                                         std::uint64_t largest = 0);
    // One request should not be larger, so that the limit also holds over short times.
    [[nodiscard]] std::uint64_t largest_request() const;

  private:
    void set_urgent(bool urgent);
    [[nodiscard]] bool stands_locked() const { return paused_ && !urgent_; }
    [[nodiscard]] std::uint64_t largest_request_locked() const;

    mutable std::mutex mutex_;  // guards all below
    std::optional<std::uint64_t> rate_;
    bool paused_ = false;
    bool urgent_ = false;
    Clock::time_point free_at_;  // when all that was admitted has had its time
};

}  // namespace nbdm
