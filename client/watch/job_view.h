// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "client/job_status.h"

namespace nbdm {

// A job as one sees it from outside, through its control socket. Its texts can be shown on a
// terminal (printable()).
struct DiskView {
    std::string source;
    std::string target;
    std::uint64_t size_bytes = 0;
    std::uint64_t moved_bytes = 0;
    std::uint64_t total_bytes = 0;
    std::uint64_t dirty_bytes = 0;
    std::uint64_t passes = 0;
    std::optional<double> dirty_rate;  // bytes per second
    std::optional<double> copy_rate;

    // A stretch of the disk; all are of one size. In ninths of it; `written` in seconds, up to 9.
    struct Cell {
        unsigned hole = 0;
        unsigned to_do = 0;
        unsigned moved = 0;
        unsigned dirty = 0;
        unsigned in_flight = 0;
        unsigned written = 9;
    };
    std::vector<Cell> cells;  // empty: not known
};

struct JobView {
    std::string job;
    Phase phase = Phase::preparing;
    std::uint64_t connections = 0;
    bool connections_auto = false;
    std::optional<std::uint64_t> bwlimit_bytes_per_s;
    Paused paused = Paused::no;
    std::string window;  // empty: none
    std::vector<DiskView> disks;
    std::optional<double> eta_s;
    bool throttled = false;             // the writers are slowed down
    std::optional<double> throttle_ms;  // by how much each write
    std::optional<double> expected_downtime_ms;
    std::optional<double> max_downtime_ms;
    std::optional<double> downtime_ms;
    std::string error;
    // For how long the job has not answered, if it should have by now.
    std::optional<std::chrono::seconds> silent;
};

// Both rates of all disks together, once a second; the newest last. Nothing: not known.
struct RateSample {
    std::optional<double> copy;
    std::optional<double> dirty;
};
using RateHistory = std::deque<RateSample>;
[[nodiscard]] RateSample rates_of(const JobView& view);

// From the answers of GET /v1/job and GET /v1/job/map; what is missing in them is not known.
// Never fails, whatever they are.
[[nodiscard]] JobView view_of_job(const nlohmann::json& status);
void add_map(JobView& view, const nlohmann::json& map);
// For a job that is over, which has no map any more: those that it had, with nothing in flight. One
// that is done has moved everything.
void keep_maps(JobView& view, const JobView& before);

}  // namespace nbdm
