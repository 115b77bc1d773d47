// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "client/block_map.h"
#include "client/work_counters.h"

namespace nbdm {

// What a job moves from where to where, as its user has named them.
struct DiskEnds {
    std::string source;
    std::string target;
};

// A disk of a job as others see it at one moment.
struct DiskSnapshot {
    DiskEnds ends;
    unsigned connections = 0;
    std::uint64_t size_bytes = 0;
    std::uint64_t moved_bytes = 0;
    std::uint64_t total_bytes = 0;
    std::uint64_t dirty_bytes = 0;
    std::uint64_t sent_bytes = 0;
    std::uint64_t zeroed_bytes = 0;
    unsigned passes = 0;
    std::optional<double> dirty_rate;   // bytes per second; nothing while unknown
    std::optional<double> copy_rate;    // of data, holes not counted
    std::optional<double> moving_rate;  // of everything
};
[[nodiscard]] nlohmann::json to_json(const DiskSnapshot& snapshot);

// Of several disks; nothing when one of them is not known.
[[nodiscard]] constexpr std::optional<double> sum_of_rates(std::optional<double> a,
                                                           std::optional<double> b) noexcept {
    return a && b ? std::optional(*a + *b) : std::nullopt;
}

// What a job is doing with one of its disks: written by the job, read by whoever shows it. Progress
// only grows: `moved_bytes` never falls and never passes `total_bytes`.
//
// Threads: any. The counters and the map are for the workers.
class DiskStatus {
  public:
    explicit DiskStatus(DiskEnds ends) { now_.ends = std::move(ends); }

    WorkCounters counters;
    BlockMap map;  // kept by a job that starts it

    // Grows with all that is done at the target, also when that is done again.
    [[nodiscard]] std::uint64_t done_bytes() const noexcept {
        return counters.moved_bytes.load() + counters.sent_bytes.load() +
               counters.zeroed_bytes.load();
    }
    void set_connections(unsigned connections);
    void set_size(std::uint64_t size_bytes);
    // More has to be moved than was known.
    void add_to_do(std::uint64_t bytes);
    // What is still to be moved is not known any more, and will be added anew.
    void forget_to_do();
    void begin_pass();
    void set_dirty(std::uint64_t dirty_bytes);
    void set_dirty_rate(double bytes_per_s);

    // Takes a sample of the rates too: call it about once a second or more often.
    [[nodiscard]] DiskSnapshot snapshot();

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

    mutable std::mutex mutex_;  // guards all below
    DiskSnapshot now_;
    std::deque<Sample> samples_;
};

}  // namespace nbdm
