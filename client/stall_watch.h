// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace nbdm {

// Whether a job's pass stands still: a server that does not answer is waited for, but not in
// silence.
//
// Threads: one at a time.
class StallWatch {
  public:
    using Clock = std::chrono::steady_clock;
    enum class Activity { none, copying, flushing };

    // A pass in which nothing is completed for this long is said to stand still.
    static constexpr std::chrono::seconds kStallLimit{10};
    // A flush may take longer when all is well.
    static constexpr std::chrono::seconds kFlushLimit{60};

    void begin(Activity activity, Clock::time_point now) noexcept;
    // It is no wonder that nothing is completed.
    void restart(Clock::time_point now) noexcept { begin(activity_, now); }
    // `done`: a count that grows with everything that is completed.
    void look(std::uint64_t done, Clock::time_point now) noexcept;

    // As of the last look.
    [[nodiscard]] bool stalled() const noexcept { return still_ >= kStallLimit; }
    // For so long that nobody should be kept waiting for its end.
    [[nodiscard]] bool hopeless() const noexcept;
    [[nodiscard]] std::string sentence() const;

  private:
    Activity activity_ = Activity::none;
    std::uint64_t done_ = 0;
    Clock::time_point since_;  // done_ last grew or the activity began
    Clock::duration still_{};
};

}  // namespace nbdm
