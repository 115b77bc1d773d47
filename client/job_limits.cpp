// SPDX-License-Identifier: Apache-2.0
#include "client/job_limits.h"

#include <stdexcept>
#include <string>
#include <utility>

#include "client/connection_tuner.h"

namespace nbdm {

using nlohmann::json;

namespace {

// A whole number within the limits.
std::uint64_t read_number(const json& value, const std::string& key, std::uint64_t least,
                          std::uint64_t most) {
    if (!value.is_number_integer() || value < least || value > most) {
        throw std::invalid_argument(key + " is a whole number from " + std::to_string(least) +
                                    " to " + std::to_string(most));
    }
    return value.get<std::uint64_t>();
}

std::optional<TimeWindow> read_window(const json& value, const std::string& key) {
    if (value.is_null()) {
        return std::nullopt;
    }
    const auto parsed = value.is_string() ? TimeWindow::parse(value.get<std::string>())
                                          : std::optional<TimeWindow>();
    if (!parsed) {
        throw std::invalid_argument(key + " is HH:MM-HH:MM, two different times, or null");
    }
    return parsed;
}

// Nothing: auto.
std::optional<unsigned> read_connections(const json& value, const std::string& key) {
    if (value == "auto") {
        return std::nullopt;
    }
    if (value.is_string()) {
        throw std::invalid_argument(key + " is a number, or \"auto\"");
    }
    return static_cast<unsigned>(read_number(value, key, 1, kMaxConnections));
}

}  // namespace

LimitChanges LimitChanges::from_json(const json& body) {
    LimitChanges changes;
    for (const auto& [key, value] : body.items()) {
        if (key == "bwlimit_bytes_per_s") {
            changes.bwlimit_bytes_per_s.emplace();
            if (!value.is_null()) {
                *changes.bwlimit_bytes_per_s =
                    read_number(value, key, Pace::kMinBytesPerSecond, INT64_MAX);
            }
        } else if (key == "window") {
            changes.window = read_window(value, key);
        } else if (key == "connections") {
            changes.connections = read_connections(value, key);
        } else if (key == "max_downtime_ms") {
            changes.max_downtime = std::chrono::milliseconds(
                read_number(value, key, 1, static_cast<std::uint64_t>(kMaxDowntimeLimit.count())));
        } else {
            throw std::invalid_argument("'" + key + "' cannot be changed");
        }
    }
    return changes;
}

json LimitChanges::to_json() const {
    json body = json::object();
    if (bwlimit_bytes_per_s) {
        body["bwlimit_bytes_per_s"] = *bwlimit_bytes_per_s ? json(**bwlimit_bytes_per_s) : json();
    }
    if (window) {
        body["window"] = *window ? json((*window)->text()) : json();
    }
    if (connections) {
        body["connections"] = *connections ? json(**connections) : json("auto");
    }
    if (max_downtime) {
        body["max_downtime_ms"] = max_downtime->count();
    }
    return body;
}

void JobLimits::apply(const LimitChanges& changes) {
    const std::lock_guard lock(mutex_);
    if (changes.bwlimit_bytes_per_s) {
        pace_.set_rate(*changes.bwlimit_bytes_per_s);
        status_.set_bwlimit(*changes.bwlimit_bytes_per_s);
    }
    if (changes.window) {
        window_ = *changes.window;
        status_.set_window(window_ ? window_->text() : "");
        refresh_locked(std::time(nullptr));
    }
    if (changes.connections) {
        const bool were_auto = std::exchange(connections_are_auto_, !*changes.connections);
        if (!connections_are_auto_) {
            connections_ = **changes.connections;
        } else if (!were_auto) {
            connections_ = ConnectionTuner::kFirst;
        }
        status_.set_connections_auto(connections_are_auto_);
    }
    max_downtime_ = changes.max_downtime.value_or(max_downtime_);
    status_.set_max_downtime(max_downtime_);
    changed_.notify_all();
}

void JobLimits::set_paused(bool paused) {
    const std::lock_guard lock(mutex_);
    paused_by_operator_ = paused;
    refresh_locked(std::time(nullptr));
}

void JobLimits::refresh(std::time_t now) {
    const std::lock_guard lock(mutex_);
    refresh_locked(now);
}

Paused JobLimits::paused_locked() const {
    return paused_by_operator_ ? Paused::by_operator
           : outside_window_   ? Paused::by_window
                               : Paused::no;
}

void JobLimits::refresh_locked(std::time_t now) {
    outside_window_ = window_ && !window_->contains(now);
    const Paused paused = paused_locked();
    pace_.set_paused(paused != Paused::no);
    status_.set_paused(paused);
    if (paused != std::exchange(paused_, paused)) {
        changed_.notify_all();
    }
}

Paused JobLimits::paused() const {
    const std::lock_guard lock(mutex_);
    return paused_locked();
}

void JobLimits::wait_for_change(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, limit);
}

void JobLimits::wait(std::chrono::milliseconds time, const Cancellation& cancellation) {
    constexpr std::chrono::milliseconds kStep{50};
    const auto end = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < end && !cancellation.requested()) {
        wait_for_change(kStep);
    }
}

unsigned JobLimits::connections() const {
    const std::lock_guard lock(mutex_);
    return connections_;
}

bool JobLimits::connections_are_auto() const {
    const std::lock_guard lock(mutex_);
    return connections_are_auto_;
}

void JobLimits::tune_connections(unsigned connections) {
    const std::lock_guard lock(mutex_);
    if (connections_are_auto_) {
        connections_ = connections;
    }
}

std::chrono::milliseconds JobLimits::max_downtime() const {
    const std::lock_guard lock(mutex_);
    return max_downtime_;
}

}  // namespace nbdm
