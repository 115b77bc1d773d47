// SPDX-License-Identifier: Apache-2.0
#include "client/job_status.h"

#include <algorithm>
#include <cmath>
#include <unistd.h>
#include <utility>

namespace nbdm {

namespace {

// Rates are means over this time.
constexpr std::chrono::seconds kRateWindow{5};

nlohmann::json rounded(const std::optional<double>& value) {
    return value ? nlohmann::json(std::llround(*value)) : nlohmann::json();
}

nlohmann::json rounded_up(const std::optional<double>& value) {
    return value ? nlohmann::json(std::llround(std::ceil(*value))) : nlohmann::json();
}

}  // namespace

const char* to_string(Phase phase) noexcept {
    switch (phase) {
        case Phase::preparing:
            return "preparing";
        case Phase::copying:
            return "copying";
        case Phase::catching_up:
            return "catching_up";
        case Phase::ready:
            return "ready";
        case Phase::cutting_over:
            return "cutting_over";
        case Phase::done:
            return "done";
        case Phase::failed:
            return "failed";
        case Phase::cancelled:
            return "cancelled";
    }
    return "";
}

bool is_over(Phase phase) noexcept {
    return phase == Phase::done || phase == Phase::failed || phase == Phase::cancelled;
}

nlohmann::json to_json(const JobSnapshot& snapshot) {
    using nlohmann::json;
    const json disk = {{"source", snapshot.source},
                       {"target", snapshot.target},
                       {"size_bytes", snapshot.size_bytes},
                       {"moved_bytes", snapshot.moved_bytes},
                       {"total_bytes", snapshot.total_bytes},
                       {"dirty_bytes", snapshot.dirty_bytes},
                       {"sent_bytes", snapshot.sent_bytes},
                       {"zeroed_bytes", snapshot.zeroed_bytes},
                       {"passes", snapshot.passes},
                       {"dirty_rate_bytes_per_s", rounded(snapshot.dirty_rate)},
                       {"copy_rate_bytes_per_s", rounded(snapshot.copy_rate)}};
    return {{"job", snapshot.job},
            {"phase", to_string(snapshot.phase)},
            {"connections", snapshot.connections},
            {"bwlimit_bytes_per_s",
             snapshot.bwlimit_bytes_per_s ? json(*snapshot.bwlimit_bytes_per_s) : json()},
            {"paused", snapshot.paused == Paused::no
                           ? json()
                           : json(snapshot.paused == Paused::by_operator ? "operator" : "window")},
            {"window", snapshot.window.empty() ? json() : json(snapshot.window)},
            {"max_downtime_ms", snapshot.max_downtime.count()},
            {"disks", json::array({disk})},
            {"eta_s", rounded(snapshot.eta_s)},
            {"throttle", snapshot.throttle_delay.count() > 0
                             ? json{{"delay_us", snapshot.throttle_delay.count()}}
                             : json()},
            {"expected_downtime_ms", rounded_up(snapshot.expected_downtime_ms)},
            {"downtime_ms", snapshot.downtime_ms ? json(*snapshot.downtime_ms) : json()},
            {"error", snapshot.error.empty() ? json() : json(snapshot.error)}};
}

JobStatus::JobStatus(std::string job, std::string source, std::string target, int changed_fd)
    : changed_fd_(changed_fd) {
    now_.job = std::move(job);
    now_.source = std::move(source);
    now_.target = std::move(target);
}

void JobStatus::set_connections(unsigned connections) {
    const std::lock_guard lock(mutex_);
    now_.connections = connections;
}

void JobStatus::set_bwlimit(std::optional<std::uint64_t> bytes_per_s) {
    const std::lock_guard lock(mutex_);
    now_.bwlimit_bytes_per_s = bytes_per_s;
}

void JobStatus::set_paused(Paused paused) {
    const std::lock_guard lock(mutex_);
    now_.paused = paused;
}

void JobStatus::set_window(const std::string& window) {
    const std::lock_guard lock(mutex_);
    now_.window = window;
}

void JobStatus::set_max_downtime(std::chrono::milliseconds downtime) {
    const std::lock_guard lock(mutex_);
    now_.max_downtime = downtime;
}

void JobStatus::set_size(std::uint64_t size_bytes) {
    const std::lock_guard lock(mutex_);
    now_.size_bytes = size_bytes;
}

void JobStatus::set_phase(Phase phase) {
    const std::lock_guard lock(mutex_);
    if (now_.phase == phase) {
        return;
    }
    now_.phase = phase;
    if (is_over(phase)) {
        now_.expected_downtime_ms.reset();
    }
    if (phase == Phase::done) {
        now_.error.clear();  // an earlier attempt to cut over may have been given up
    }
    refresh_locked();
    phase_changes_.push_back(now_);
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(changed_fd_, &one, sizeof(one));
}

std::vector<JobSnapshot> JobStatus::take_phase_changes() {
    const std::lock_guard lock(mutex_);
    return std::exchange(phase_changes_, {});
}

void JobStatus::set_error(const std::string& sentence) {
    const std::lock_guard lock(mutex_);
    now_.error = sentence;
}

void JobStatus::add_to_do(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    now_.total_bytes += bytes;
}

void JobStatus::forget_to_do() {
    const std::lock_guard lock(mutex_);
    refresh_locked();
    now_.total_bytes = now_.moved_bytes;
    counters.moved_bytes.store(now_.moved_bytes, std::memory_order_relaxed);
}

void JobStatus::begin_pass() {
    const std::lock_guard lock(mutex_);
    ++now_.passes;
}

void JobStatus::set_dirty(std::uint64_t dirty_bytes) {
    const std::lock_guard lock(mutex_);
    now_.dirty_bytes = dirty_bytes;
}

void JobStatus::set_dirty_rate(double bytes_per_s) {
    const std::lock_guard lock(mutex_);
    now_.dirty_rate = bytes_per_s;
}

void JobStatus::set_expected_downtime(std::optional<double> ms) {
    const std::lock_guard lock(mutex_);
    now_.expected_downtime_ms = ms;
}

void JobStatus::set_downtime(double ms) {
    const std::lock_guard lock(mutex_);
    now_.downtime_ms = ms;
}

void JobStatus::set_throttle(std::chrono::microseconds delay) {
    const std::lock_guard lock(mutex_);
    now_.throttle_delay = delay;
}

Phase JobStatus::phase() const {
    const std::lock_guard lock(mutex_);
    return now_.phase;
}

JobSnapshot JobStatus::snapshot() {
    const std::lock_guard lock(mutex_);
    refresh_locked();
    return now_;
}

void JobStatus::refresh_locked() {
    const Clock::time_point now = Clock::now();
    // Passes may find more than the freeze counted, by the blocks at an odd end.
    now_.moved_bytes =
        std::max(now_.moved_bytes,
                 std::min(counters.moved_bytes.load(std::memory_order_relaxed), now_.total_bytes));
    now_.sent_bytes = counters.sent_bytes.load(std::memory_order_relaxed);
    now_.zeroed_bytes = counters.zeroed_bytes.load(std::memory_order_relaxed);
    samples_.push_back({now, now_.moved_bytes, now_.sent_bytes});
    while (samples_.size() > 2 && now - samples_.front().time > kRateWindow) {
        samples_.pop_front();
    }
    now_.copy_rate = rate(&Sample::sent_bytes);
    const std::optional<double> moving_rate = rate(&Sample::moved_bytes);
    now_.eta_s.reset();
    const std::uint64_t left = now_.total_bytes - now_.moved_bytes;
    const bool moving = now_.phase == Phase::copying || now_.phase == Phase::catching_up;
    if (moving && moving_rate && now_.paused == Paused::no) {
        // While writers dirty faster than is copied there is no end in sight.
        const double net = *moving_rate - now_.dirty_rate.value_or(0);
        if (net > 0) {
            now_.eta_s = static_cast<double>(left) / net;
        }
    }
}

std::optional<double> JobStatus::rate(std::uint64_t Sample::*field) const {
    if (samples_.size() < 2) {
        return std::nullopt;
    }
    const Sample& first = samples_.front();
    const Sample& last = samples_.back();
    const std::chrono::duration<double> time = last.time - first.time;
    if (time.count() <= 0) {
        return std::nullopt;
    }
    return static_cast<double>(last.*field - first.*field) / time.count();
}

}  // namespace nbdm
