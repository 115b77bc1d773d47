// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/disk_status.h"

namespace nbdm {

// In their order in time.
enum class Phase { preparing, copying, catching_up, ready, cutting_over, done, failed, cancelled };
inline constexpr std::array kPhases = {Phase::preparing, Phase::copying,      Phase::catching_up,
                                       Phase::ready,     Phase::cutting_over, Phase::done,
                                       Phase::failed,    Phase::cancelled};
[[nodiscard]] const char* to_string(Phase phase) noexcept;
[[nodiscard]] std::optional<Phase> phase_named(std::string_view name) noexcept;
[[nodiscard]] bool is_over(Phase phase) noexcept;

// Whether a job waits, and for whom.
enum class Paused { no, by_operator, by_window };

// Which side's disks guests may write to. Nobody's: they were handed over, and the targets wait to
// be told.
enum class Owner { source, target, nobody, unknown };
[[nodiscard]] const char* to_string(Owner owner) noexcept;

// A job as others see it at one moment; the fields of `status --json`.
struct JobSnapshot {
    std::string job;
    Phase phase = Phase::preparing;
    std::optional<std::uint64_t> bwlimit_bytes_per_s;
    std::string window;  // empty: none
    std::chrono::milliseconds max_downtime{0};
    Paused paused = Paused::no;
    bool connections_auto = false;    // their number is left to the job
    std::vector<DiskSnapshot> disks;  // at least one
    std::optional<double> eta_s;
    std::optional<double> expected_downtime_ms;  // if it were cut over now
    std::optional<double> downtime_ms;
    std::chrono::microseconds throttle_delay{0};  // of each write at the source; 0: none
    std::optional<Owner> owner;                   // nothing: the job moves nothing
    std::string error;
};
// All disks together; a rate is known once it is known of each.
[[nodiscard]] DiskSnapshot sum_of_disks(const JobSnapshot& snapshot);
[[nodiscard]] nlohmann::json to_json(const JobSnapshot& snapshot);

// What a job is doing: written by the job, read by whoever shows it.
//
// Threads: any.
class JobStatus {
  public:
    // `disks`: at least one. `changed_fd` (an eventfd) is written at each change of phase.
    JobStatus(std::string job, std::vector<DiskEnds> disks, int changed_fd);

    [[nodiscard]] DiskStatus& disk(std::size_t index) { return *disks_.at(index); }

    void set_bwlimit(std::optional<std::uint64_t> bytes_per_s);
    void set_connections_auto(bool is_auto);
    void set_paused(Paused paused);
    void set_window(const std::string& window);
    void set_max_downtime(std::chrono::milliseconds downtime);
    void set_phase(Phase phase);
    // Stays until another one takes its place ("": none), or the job is done.
    void set_error(const std::string& sentence);
    // Unless another one has taken its place.
    void clear_error(const std::string& sentence);
    void set_expected_downtime(std::optional<double> ms);
    void set_downtime(double ms);
    void set_owner(Owner owner);
    void set_throttle(std::chrono::microseconds delay);

    [[nodiscard]] Phase phase() const;
    // The job as it was at each change of phase since the last call, in order.
    [[nodiscard]] std::vector<JobSnapshot> take_phase_changes();
    // All that were taken are on record.
    void phase_changes_recorded();
    // Until all so far are, but no longer than that.
    void wait_until_recorded(std::chrono::milliseconds limit);
    // Takes a sample of the rates too: call it about once a second or more often.
    [[nodiscard]] JobSnapshot snapshot();

  private:
    void refresh_locked();

    const int changed_fd_;
    std::vector<std::unique_ptr<DiskStatus>> disks_;
    mutable std::mutex mutex_;  // guards all below
    JobSnapshot now_;
    std::vector<JobSnapshot> phase_changes_;
    bool taken_ = false;  // some are not on record yet, and were taken
    std::condition_variable recorded_;
};

}  // namespace nbdm
