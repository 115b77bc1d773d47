// SPDX-License-Identifier: Apache-2.0
#include "client/job_status.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "iothread/event_fd.h"

namespace nbdm {

namespace {

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

const char* to_string(Owner owner) noexcept {
    switch (owner) {
        case Owner::source:
            return "source";
        case Owner::target:
            return "target";
        case Owner::nobody:
            return "nobody";
        case Owner::unknown:
            return "unknown";
    }
    return "";
}

std::optional<Phase> phase_named(std::string_view name) noexcept {
    const auto found = std::ranges::find(kPhases, name, [](Phase each) { return to_string(each); });
    return found == kPhases.end() ? std::nullopt : std::optional(*found);
}

bool is_over(Phase phase) noexcept {
    return phase == Phase::done || phase == Phase::failed || phase == Phase::cancelled;
}

DiskSnapshot sum_of_disks(const JobSnapshot& snapshot) {
    DiskSnapshot sum = snapshot.disks.empty() ? DiskSnapshot() : snapshot.disks.front();
    for (std::size_t i = 1; i < snapshot.disks.size(); ++i) {
        const DiskSnapshot& disk = snapshot.disks[i];
        sum.connections += disk.connections;
        sum.size_bytes += disk.size_bytes;
        sum.moved_bytes += disk.moved_bytes;
        sum.total_bytes += disk.total_bytes;
        sum.dirty_bytes += disk.dirty_bytes;
        sum.sent_bytes += disk.sent_bytes;
        sum.zeroed_bytes += disk.zeroed_bytes;
        sum.passes += disk.passes;
        sum.dirty_rate = sum_of_rates(sum.dirty_rate, disk.dirty_rate);
        sum.copy_rate = sum_of_rates(sum.copy_rate, disk.copy_rate);
        sum.moving_rate = sum_of_rates(sum.moving_rate, disk.moving_rate);
    }
    return sum;
}

nlohmann::json to_json(const JobSnapshot& snapshot) {
    using nlohmann::json;
    json disks = json::array();
    for (const DiskSnapshot& disk : snapshot.disks) {
        disks.push_back(to_json(disk));
    }
    return {{"job", snapshot.job},
            {"phase", to_string(snapshot.phase)},
            {"connections", sum_of_disks(snapshot).connections},
            {"connections_auto", snapshot.connections_auto},
            {"bwlimit_bytes_per_s",
             snapshot.bwlimit_bytes_per_s ? json(*snapshot.bwlimit_bytes_per_s) : json()},
            {"paused", snapshot.paused == Paused::no
                           ? json()
                           : json(snapshot.paused == Paused::by_operator ? "operator" : "window")},
            {"window", snapshot.window.empty() ? json() : json(snapshot.window)},
            {"max_downtime_ms", snapshot.max_downtime.count()},
            {"disks", disks},
            {"eta_s", rounded(snapshot.eta_s)},
            {"throttle", snapshot.throttle_delay.count() > 0
                             ? json{{"delay_us", snapshot.throttle_delay.count()}}
                             : json()},
            {"expected_downtime_ms", rounded_up(snapshot.expected_downtime_ms)},
            {"downtime_ms", snapshot.downtime_ms ? json(*snapshot.downtime_ms) : json()},
            {"owner", snapshot.owner ? json(to_string(*snapshot.owner)) : json()},
            {"error", snapshot.error.empty() ? json() : json(snapshot.error)}};
}

JobStatus::JobStatus(std::string job, std::vector<DiskEnds> disks, int changed_fd)
    : changed_fd_(changed_fd) {
    now_.job = std::move(job);
    for (DiskEnds& ends : disks) {
        disks_.push_back(std::make_unique<DiskStatus>(std::move(ends)));
    }
}

void JobStatus::set_bwlimit(std::optional<std::uint64_t> bytes_per_s) {
    const std::lock_guard lock(mutex_);
    now_.bwlimit_bytes_per_s = bytes_per_s;
}

void JobStatus::set_connections_auto(bool is_auto) {
    const std::lock_guard lock(mutex_);
    now_.connections_auto = is_auto;
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
    ring_event_fd(changed_fd_);
}

std::vector<JobSnapshot> JobStatus::take_phase_changes() {
    const std::lock_guard lock(mutex_);
    taken_ = !phase_changes_.empty();
    return std::exchange(phase_changes_, {});
}

void JobStatus::phase_changes_recorded() {
    const std::lock_guard lock(mutex_);
    taken_ = false;
    recorded_.notify_all();
}

void JobStatus::wait_until_recorded(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    recorded_.wait_for(lock, limit, [this] { return phase_changes_.empty() && !taken_; });
}

void JobStatus::set_error(const std::string& sentence) {
    const std::lock_guard lock(mutex_);
    now_.error = sentence;
}

void JobStatus::clear_error(const std::string& sentence) {
    const std::lock_guard lock(mutex_);
    if (now_.error == sentence) {
        now_.error.clear();
    }
}

void JobStatus::set_expected_downtime(std::optional<double> ms) {
    const std::lock_guard lock(mutex_);
    now_.expected_downtime_ms = ms;
}

void JobStatus::set_downtime(double ms) {
    const std::lock_guard lock(mutex_);
    now_.downtime_ms = ms;
}

void JobStatus::set_owner(Owner owner) {
    const std::lock_guard lock(mutex_);
    now_.owner = owner;
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
    now_.disks.clear();
    for (const auto& disk : disks_) {
        now_.disks.push_back(disk->snapshot());
    }
    const DiskSnapshot sum = sum_of_disks(now_);
    now_.eta_s.reset();
    const bool moving = now_.phase == Phase::copying || now_.phase == Phase::catching_up;
    if (moving && sum.moving_rate && now_.paused == Paused::no) {
        // While writers dirty faster than is copied there is no end in sight.
        const double net = *sum.moving_rate - sum.dirty_rate.value_or(0);
        if (net > 0) {
            now_.eta_s = static_cast<double>(sum.total_bytes - sum.moved_bytes) / net;
        }
    }
}

}  // namespace nbdm
