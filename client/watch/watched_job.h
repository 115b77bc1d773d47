// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "client/watch/job_view.h"
#include "control/http_client.h"

namespace nbdm {

// A job that somebody looks at: its last known state, and what its rates were since it is watched.
//
// Threads: one at a time.
class WatchedJob {
  public:
    using Clock = std::chrono::steady_clock;

    explicit WatchedJob(const std::string& job);

    // Asks the job, or what it has left behind. Returns early, with nothing changed, when
    // `interrupted`, which is asked several times a second, says so. Throws JobError when what it
    // has left cannot be read.
    void look(Clock::time_point now, const std::function<bool()>& interrupted);

    [[nodiscard]] const std::string& name() const noexcept { return job_; }
    // Nothing is known of it: there is no such job, if it was looked at.
    [[nodiscard]] bool is_unknown() const noexcept { return state_.is_null(); }
    [[nodiscard]] const JobView& view() const noexcept { return view_; }
    [[nodiscard]] const RateHistory& history() const noexcept { return history_; }
    // As `status --json` has it.
    [[nodiscard]] const nlohmann::json& state() const noexcept { return state_; }
    // It has ended, and will not change any more.
    [[nodiscard]] bool is_over() const noexcept { return nbdm::is_over(view_.phase); }

  private:
    void take(nlohmann::json state);
    // It does not run any more.
    void take_end();
    void note_silence(std::chrono::seconds time);
    void note_rates(Clock::time_point now);

    const std::string job_;
    HttpClient client_;
    nlohmann::json state_;
    JobView view_;
    RateHistory history_;
    Clock::time_point answered_ = Clock::now();
    Clock::time_point noted_;
};

}  // namespace nbdm
