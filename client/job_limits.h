// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <ctime>
#include <mutex>
#include <optional>

#include <nlohmann/json.hpp>

#include "client/cancellation.h"
#include "client/job_status.h"
#include "client/pace.h"
#include "client/time_window.h"

namespace nbdm {

// What an operator says of a job's limits, at its start or while it runs; what is missing stays.
struct LimitChanges {
    // The inner nothing: no limit, no window, as many as are best.
    std::optional<std::optional<std::uint64_t>> bwlimit_bytes_per_s;
    std::optional<std::optional<TimeWindow>> window;
    std::optional<std::optional<unsigned>> connections;
    std::optional<std::chrono::milliseconds> max_downtime;

    // The body of PATCH /v1/job, and back. Throws std::invalid_argument with a sentence.
    [[nodiscard]] static LimitChanges from_json(const nlohmann::json& body);
    [[nodiscard]] nlohmann::json to_json() const;
};

constexpr unsigned kMaxConnections = 64;
constexpr std::chrono::milliseconds kMaxDowntimeLimit{60'000};

// The limits in force, and whether the job is paused; its status is told of each change.
//
// Threads: any. `status` outlives it.
class JobLimits {
  public:
    explicit JobLimits(JobStatus& status) : status_(status) {}

    [[nodiscard]] Pace& pace() noexcept { return pace_; }

    void apply(const LimitChanges& changes);
    // By an operator. Outside of its window a job is paused, too.
    void set_paused(bool paused);
    // Looks at the clock on the wall. Call about once a second.
    void refresh(std::time_t now);

    [[nodiscard]] Paused paused() const;
    // Up to `limit`, and less when something has been changed.
    void wait_for_change(std::chrono::milliseconds limit);
    // For so long, whatever is changed, or until the job is cancelled.
    void wait(std::chrono::milliseconds time, const Cancellation& cancellation);
    [[nodiscard]] unsigned connections() const;
    // Left to the job, which calls tune_connections().
    [[nodiscard]] bool connections_are_auto() const;
    // Where that is so.
    void tune_connections(unsigned connections);
    [[nodiscard]] std::chrono::milliseconds max_downtime() const;

  private:
    [[nodiscard]] Paused paused_locked() const;
    void refresh_locked(std::time_t now);

    JobStatus& status_;
    Pace pace_;
    mutable std::mutex mutex_;  // guards all below
    std::condition_variable changed_;
    bool paused_by_operator_ = false;
    bool outside_window_ = false;
    Paused paused_ = Paused::no;  // as it was told last
    std::optional<TimeWindow> window_;
    unsigned connections_ = 4;
    bool connections_are_auto_ = false;
    std::chrono::milliseconds max_downtime_{500};
};

}  // namespace nbdm
