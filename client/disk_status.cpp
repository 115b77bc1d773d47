// SPDX-License-Identifier: Apache-2.0
#include "client/disk_status.h"

#include <algorithm>
#include <cmath>

namespace nbdm {

namespace {

// Rates are means over this time.
constexpr std::chrono::seconds kRateWindow{5};

nlohmann::json rounded(const std::optional<double>& value) {
    return value ? nlohmann::json(std::llround(*value)) : nlohmann::json();
}

}  // namespace

nlohmann::json to_json(const DiskSnapshot& snapshot) {
    return {{"source", snapshot.ends.source},
            {"target", snapshot.ends.target},
            {"size_bytes", snapshot.size_bytes},
            {"moved_bytes", snapshot.moved_bytes},
            {"total_bytes", snapshot.total_bytes},
            {"dirty_bytes", snapshot.dirty_bytes},
            {"sent_bytes", snapshot.sent_bytes},
            {"zeroed_bytes", snapshot.zeroed_bytes},
            {"passes", snapshot.passes},
            {"dirty_rate_bytes_per_s", rounded(snapshot.dirty_rate)},
            {"copy_rate_bytes_per_s", rounded(snapshot.copy_rate)}};
}

void DiskStatus::set_connections(unsigned connections) {
    const std::lock_guard lock(mutex_);
    now_.connections = connections;
}

void DiskStatus::set_size(std::uint64_t size_bytes) {
    const std::lock_guard lock(mutex_);
    now_.size_bytes = size_bytes;
}

void DiskStatus::add_to_do(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    now_.total_bytes += bytes;
}

void DiskStatus::forget_to_do() {
    const std::lock_guard lock(mutex_);
    refresh_locked();
    now_.total_bytes = now_.moved_bytes;
    counters.moved_bytes.store(now_.moved_bytes, std::memory_order_relaxed);
}

void DiskStatus::begin_pass() {
    const std::lock_guard lock(mutex_);
    ++now_.passes;
}

void DiskStatus::set_dirty(std::uint64_t dirty_bytes) {
    const std::lock_guard lock(mutex_);
    now_.dirty_bytes = dirty_bytes;
}

void DiskStatus::set_dirty_rate(double bytes_per_s) {
    const std::lock_guard lock(mutex_);
    now_.dirty_rate = bytes_per_s;
}

DiskSnapshot DiskStatus::snapshot() {
    const std::lock_guard lock(mutex_);
    refresh_locked();
    return now_;
}

void DiskStatus::refresh_locked() {
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
    now_.moving_rate = rate(&Sample::moved_bytes);
}

std::optional<double> DiskStatus::rate(std::uint64_t Sample::*field) const {
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
