// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/block_map.h"
#include "client/work_counters.h"

namespace nbdm {

// In their order in time.
enum class Phase { preparing, copying, catching_up, ready, cutting_over, done, failed, cancelled };
[[nodiscard]] const char* to_string(Phase phase) noexcept;
[[nodiscard]] bool is_over(Phase phase) noexcept;

// Whether a job waits, and for whom.
enum class Paused { no, by_operator, by_window };

// A job as others see it at one moment; the fields of `status --json`.
struct JobSnapshot {
    std::string job;
    Phase phase = Phase::preparing;
    unsigned connections = 0;
    std::optional<std::uint64_t> bwlimit_bytes_per_s;
    std::string window;  // empty: none
    std::chrono::milliseconds max_downtime{0};
    Paused paused = Paused::no;
    std::string source;
    std::string target;
    std::uint64_t size_bytes = 0;
    std::uint64_t moved_bytes = 0;
    std::uint64_t total_bytes = 0;
    std::uint64_t dirty_bytes = 0;
    std::uint64_t sent_bytes = 0;
    std::uint64_t zeroed_bytes = 0;
    unsigned passes = 0;
    std::optional<double> dirty_rate;  // bytes per second; nothing while unknown
    std::optional<double> copy_rate;   // of data, holes not counted
    std::optional<double> eta_s;
    std::optional<double> expected_downtime_ms;  // if it were cut over now
    std::optional<double> downtime_ms;
    std::chrono::microseconds throttle_delay{0};  // of each write at the source; 0: none
    std::string error;
};
[[nodiscard]] nlohmann::json to_json(const JobSnapshot& snapshot);

// What a job is doing: written by the job, read by whoever shows it. Progress only grows:
// `moved_bytes` never falls and never passes `total_bytes`.
//
// Threads: any. The counters and the map are for the workers.
class JobStatus {
  public:
    // `changed_fd` (an eventfd) is written at each change of phase.
    JobStatus(std::string job, std::string source, std::string target, int changed_fd);

    WorkCounters counters;
    BlockMap map;  // kept by a job that starts it

    void set_connections(unsigned connections);
    void set_bwlimit(std::optional<std::uint64_t> bytes_per_s);
    void set_paused(Paused paused);
    void set_window(const std::string& window);
    void set_max_downtime(std::chrono::milliseconds downtime);
    void set_size(std::uint64_t size_bytes);
    void set_phase(Phase phase);
    // The job is over or has fallen back; the sentence stays until it is over.
    void set_error(const std::string& sentence);
    // More has to be moved than was known.
    void add_to_do(std::uint64_t bytes);
    // What is still to be moved is not known any more, and will be added anew.
    void forget_to_do();
    void begin_pass();
    void set_dirty(std::uint64_t dirty_bytes);
    void set_dirty_rate(double bytes_per_s);
    void set_expected_downtime(std::optional<double> ms);
    void set_downtime(double ms);
    void set_throttle(std::chrono::microseconds delay);

    [[nodiscard]] Phase phase() const;
    // The job as it was at each change of phase since the last call, in order.
    [[nodiscard]] std::vector<JobSnapshot> take_phase_changes();
    // Takes a sample of the rates too: call it about once a second or more often.
    [[nodiscard]] JobSnapshot snapshot();

  private:
    using Clock = std::chrono::steady_clock;
    struct Sample {
        Clock::time_point time;
        std::uint64_t moved_bytes = 0;
        std::uint64_t sent_bytes = 0;
    };
    // Of a sample's field, over the window.
    [[nodiscard]] std::optional<double> rate(std::uint64_t Sample::*field) const;

    void refresh_locked();

    const int changed_fd_;
    mutable std::mutex mutex_;  // guards all below
    JobSnapshot now_;
    std::vector<JobSnapshot> phase_changes_;
    std::deque<Sample> samples_;
};

}  // namespace nbdm
