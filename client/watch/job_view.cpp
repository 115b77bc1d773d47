// SPDX-License-Identifier: Apache-2.0
#include "client/watch/job_view.h"

#include <algorithm>
#include <array>
#include <utility>

#include <nlohmann/json.hpp>

#include "client/watch/styled_line.h"

namespace nbdm {

using nlohmann::json;

namespace {

// Another version's job may say more or less than this one's. No number that it tells is negative.
std::optional<double> read_number(const json& from, const char* key) {
    const auto found = from.find(key);
    if (found == from.end() || !found->is_number()) {
        return std::nullopt;
    }
    return std::max(found->get<double>(), 0.0);
}

std::optional<std::uint64_t> read_count(const json& from, const char* key) {
    constexpr double kMost = 0x1p63;
    const std::optional<double> number = read_number(from, key);
    return number ? std::optional(static_cast<std::uint64_t>(std::min(*number, kMost)))
                  : std::nullopt;
}

std::string read_text(const json& from, const char* key) {
    const auto found = from.find(key);
    return found != from.end() && found->is_string() ? printable(found->get<std::string>()) : "";
}

Phase read_phase(const json& status) {
    return phase_named(read_text(status, "phase")).value_or(Phase::preparing);
}

std::optional<double> read_throttle_ms(const json& status) {
    constexpr double kMicrosecondsPerMillisecond = 1000;
    const auto found = status.find("throttle");
    const auto delay_us = found == status.end() ? std::nullopt : read_number(*found, "delay_us");
    return delay_us ? std::optional(*delay_us / kMicrosecondsPerMillisecond) : std::nullopt;
}

DiskView read_disk(const json& from) {
    return {.source = read_text(from, "source"),
            .target = read_text(from, "target"),
            .size_bytes = read_count(from, "size_bytes").value_or(0),
            .moved_bytes = read_count(from, "moved_bytes").value_or(0),
            .total_bytes = read_count(from, "total_bytes").value_or(0),
            .dirty_bytes = read_count(from, "dirty_bytes").value_or(0),
            .passes = read_count(from, "passes").value_or(0),
            .dirty_rate = read_number(from, "dirty_rate_bytes_per_s"),
            .copy_rate = read_number(from, "copy_rate_bytes_per_s"),
            .cells = {}};
}

const json& list_of_disks(const json& answer) {
    static const json none = json::array();
    const auto found = answer.find("disks");
    return found != answer.end() && found->is_array() ? *found : none;
}

void read_cells(const json& from, DiskView& disk) {
    using Cell = DiskView::Cell;
    const std::array<std::pair<const char*, unsigned Cell::*>, 6> fields = {
        {{"hole", &Cell::hole},
         {"to_do", &Cell::to_do},
         {"moved", &Cell::moved},
         {"dirty", &Cell::dirty},
         {"in_flight", &Cell::in_flight},
         {"written", &Cell::written}}};
    disk.cells.clear();
    for (const auto& [key, field] : fields) {
        const std::string text = read_text(from, key);
        disk.cells.resize(std::max(disk.cells.size(), text.size()));
        for (std::size_t i = 0; i < text.size(); ++i) {
            disk.cells[i].*field = static_cast<unsigned>(std::clamp(text[i] - '0', 0, 9));
        }
    }
}

}  // namespace

JobView view_of_job(const json& status) {
    const std::string paused = read_text(status, "paused");
    JobView view{.job = read_text(status, "job"),
                 .phase = read_phase(status),
                 .connections = read_count(status, "connections").value_or(0),
                 .connections_auto =
                     status.contains("connections_auto") && status.at("connections_auto") == true,
                 .bwlimit_bytes_per_s = read_count(status, "bwlimit_bytes_per_s"),
                 .paused = paused == "window" ? Paused::by_window
                           : paused.empty()   ? Paused::no
                                              : Paused::by_operator,
                 .window = read_text(status, "window"),
                 .disks = {},
                 .eta_s = read_number(status, "eta_s"),
                 .throttled = status.contains("throttle") && status.at("throttle").is_object(),
                 .throttle_ms = read_throttle_ms(status),
                 .expected_downtime_ms = read_number(status, "expected_downtime_ms"),
                 .max_downtime_ms = read_number(status, "max_downtime_ms"),
                 .downtime_ms = read_number(status, "downtime_ms"),
                 .error = read_text(status, "error"),
                 .silent = {}};
    for (const json& disk : list_of_disks(status)) {
        view.disks.push_back(read_disk(disk));
    }
    if (is_over(view.phase)) {  // what was expected has come, or never will
        view.eta_s.reset();
        view.expected_downtime_ms.reset();
    }
    return view;
}

void add_map(JobView& view, const json& map) {
    const json& disks = list_of_disks(map);
    for (std::size_t i = 0; i < std::min(view.disks.size(), disks.size()); ++i) {
        read_cells(disks[i], view.disks[i]);
    }
}

void keep_maps(JobView& view, const JobView& before) {
    for (std::size_t i = 0; i < std::min(view.disks.size(), before.disks.size()); ++i) {
        DiskView& disk = view.disks[i];
        disk.cells = before.disks[i].cells;
        for (DiskView::Cell& cell : disk.cells) {
            cell.written = 9;
            cell.to_do += std::exchange(cell.in_flight, 0);
            if (view.phase == Phase::done) {
                cell.moved += std::exchange(cell.to_do, 0) + std::exchange(cell.dirty, 0);
            }
        }
    }
}

RateSample rates_of(const JobView& view) {
    if (view.disks.empty()) {
        return {};
    }
    RateSample sum{.copy = 0, .dirty = 0};
    for (const DiskView& disk : view.disks) {
        sum.copy = sum_of_rates(sum.copy, disk.copy_rate);
        sum.dirty = sum_of_rates(sum.dirty, disk.dirty_rate);
    }
    return sum;
}

}  // namespace nbdm
