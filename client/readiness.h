// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "client/downtime_forecast.h"
#include "client/job_limits.h"
#include "client/job_status.h"

namespace nbdm {

// Whether a mirror's job is ready: about as much as is dirty could be copied within the allowed
// downtime. The status is told what downtime is expected.
//
// Threads: one at a time.
class Readiness {
  public:
    using Clock = DowntimeForecast::Clock;

    // A ready job is given this long, or the allowed downtime where that is longer, in which more
    // is dirty than fits; then it is ready no more.
    static constexpr std::chrono::milliseconds kMaxUnfitTime{1000};

    // Both outlive it.
    Readiness(JobStatus& status, JobLimits& limits) noexcept : status_(status), limits_(limits) {}

    struct Round {
        std::uint64_t dirty_bytes = 0;  // that it found; of the first one, that it has left
        std::uint64_t copied_bytes = 0;
        Clock::duration copying{};
        Clock::duration flushing{};
    };
    void round_ended(const Round& round);
    // What that was fits.
    [[nodiscard]] bool last_round_fits() const noexcept { return last_round_fits_; }

    // So much is dirty now.
    void look(std::uint64_t dirty_bytes, Clock::time_point now);
    // As of the last look: while a round lasts, it has been too much for too long.
    [[nodiscard]] bool is_outgrown() const noexcept { return outgrown_; }
    // 0: not known yet.
    [[nodiscard]] double copy_bytes_per_s() { return forecast().copy_bytes_per_s(); }

  private:
    [[nodiscard]] const DowntimeForecast& forecast();
    [[nodiscard]] bool fits(std::uint64_t dirty_bytes);
    void tell_expected_downtime(std::uint64_t dirty_bytes);

    JobStatus& status_;
    JobLimits& limits_;
    DowntimeForecast forecast_;
    bool last_round_fits_ = false;
    std::optional<Clock::time_point> unfit_since_;
    bool outgrown_ = false;
};

}  // namespace nbdm
