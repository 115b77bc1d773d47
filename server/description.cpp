// SPDX-License-Identifier: Apache-2.0
#include "server/description.h"

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "control/utc.h"
#include "iothread/check.h"

namespace nbdm {

using nlohmann::json;

namespace {

// Whoever reads it has another working directory. As it was named where this one is gone.
std::string absolute_path(const DiskFile& file) {
    std::error_code unknown;
    const std::filesystem::path path = std::filesystem::absolute(file.path(), unknown);
    return unknown ? file.path() : path.string();
}

// By kind, of the clients that somebody waits for.
json describe_latency(const Server& server, const Export& served) {
    Statistics statistics;
    server.add_statistics(served, Server::Clients::not_in_background, statistics);
    json kinds = json::object();
    for (std::size_t i = 0; i < Statistics::kTimed.size(); ++i) {
        const auto command = static_cast<std::size_t>(Statistics::kTimed[i]);
        const Statistics::Latency& latency = statistics.latency[i];
        kinds[std::string(Statistics::kCommands[command])] = {
            {"requests", latency.count()}, {"total_us", latency.total_ns.get() / 1000}};
    }
    return kinds;
}

}  // namespace

json describe_throttle(const Export& served) {
    const Throttle::Setting now = served.throttle().setting(Throttle::Clock::now());
    if (now.bytes_per_s > 0) {
        return {{"bytes_per_s", now.bytes_per_s}};
    }
    return now.delay.count() > 0 ? json{{"delay_us", now.delay.count()}} : json();
}

json describe(Server& server, const Export& served) {
    json trackers = json::array();
    for (const TrackerStatus& each : served.trackers().status()) {
        trackers.push_back({{"name", each.name},
                            {"granularity", each.granularity_bytes},
                            {"generation", each.generation},
                            {"frozen_bytes", each.frozen_bytes},
                            {"unacknowledged_bytes", each.unacknowledged_bytes},
                            {"dirty_bytes", each.dirty_bytes},
                            {"incarnation", each.incarnation},
                            {"readers", each.readers},
                            {"exclusive", each.exclusive}});
    }
    Statistics statistics;
    server.add_statistics(served, Server::Clients::all, statistics);
    const int error = served.write_back_error();
    json moved;
    if (const MoveRecord* record = server.hand_overs().move_of(served)) {
        moved = {{"to", record->moved_to}, {"at", record->moved_at}, {"job", record->job}};
    }
    const char* state = served.landing().expected()     ? "incoming"
                        : served.gate().retired()       ? "retired"
                        : server.hold_of(served).held() ? "held"
                                                        : "serving";
    return {{"name", served.name()},
            {"path", absolute_path(served.file())},
            {"place", served.file().place()},
            {"direct", served.file().direct()},
            {"size_bytes", served.size_bytes()},
            {"read_only", served.read_only()},
            {"description", served.options().description},
            {"state", state},
            {"moved", moved},
            {"uris", server.uris(served)},
            {"throttle", describe_throttle(served)},
            {"trackers", trackers},
            {"connections", server.connections_to(served)},
            {"read_bytes", statistics.read_bytes()},
            {"written_bytes", statistics.written_bytes()},
            {"latency", describe_latency(server, served)},
            {"write_error", error == 0 ? json() : json(error_text(error))}};
}

json describe_connections(const Server& server) {
    json all = json::array();
    for (const Connection& each : server.connections()) {
        const Export* served = each.served();
        json requests = json::object();
        json bytes = json::object();
        for (std::size_t i = 0; i < Statistics::kCommands.size(); ++i) {
            const Statistics::Requests& of = each.statistics().requests[i];
            if (of.count.get() > 0) {
                requests[std::string(Statistics::kCommands[i])] = of.count.get();
            }
            if (of.bytes.get() > 0) {
                bytes[std::string(Statistics::kCommands[i])] = of.bytes.get();
            }
        }
        all.push_back({{"id", each.id()},
                       {"peer", each.peer()},
                       {"export", served != nullptr ? json(served->name()) : json()},
                       {"background", served != nullptr && each.background()},
                       {"tls", false},
                       {"thread", each.tid()},
                       {"cpu", each.cpu() >= 0 ? json(each.cpu()) : json()},
                       {"since", utc_text(each.since())},
                       {"in_flight", each.statistics().in_flight.get()},
                       {"requests", requests},
                       {"bytes", bytes}});
    }
    return {{"connections", all}};
}

}  // namespace nbdm
