// SPDX-License-Identifier: Apache-2.0
#include "server/control_api.h"

#include <bit>
#include <chrono>
#include <utility>

#include "control/log.h"
#include "control/prometheus.h"
#include "control/request_body.h"
#include "control/utc.h"
#include "iothread/check.h"
#include "server/metrics.h"

namespace nbdm {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kDefaultLease{5000};
constexpr std::uint64_t kMaxLeaseMs = 60'000;
constexpr std::size_t kMaxTrackerNameBytes = 256;

double to_ms(std::chrono::nanoseconds duration) {
    return std::chrono::duration<double, std::milli>(duration).count();
}

std::string quoted(const Export& served) {
    return "export '" + served.name() + "'";
}

}  // namespace

void ControlApi::handle(HttpRequest request) {
    const auto& path = request.path;
    const bool get = request.method == "GET";
    if (path.size() == 1 && path[0] == "metrics" && get) {
        request.reply_text(200, PrometheusText::kContentType, metrics_text(server_));
        return;
    }
    if (path.size() == 2 && path[0] == "v1" && path[1] == "connections" && get) {
        request.reply(200, describe_connections());
        return;
    }
    if (path.size() < 2 || path[0] != "v1" || path[1] != "exports") {
        request.reply_error(404, "there is nothing at this path");
        return;
    }
    if (path.size() == 2 && get) {
        json all = json::array();
        for (const auto& served : server_.exports().all()) {
            all.push_back(describe(*served));
        }
        request.reply(200, {{"exports", all}});
        return;
    }
    // The empty name is written as "-".
    const std::string name = path.size() < 3 || path[2] == "-" ? "" : path[2];
    Export* served = path.size() < 3 ? nullptr : server_.exports().find(name);
    if (served == nullptr && path.size() >= 3) {
        request.reply_error(404, "there is no export '" + name + "'");
    } else if (served == nullptr) {
        request.reply_error(405, "this path does not take " + request.method);
    } else {
        handle_export(std::move(request), *served);
    }
}

void ControlApi::handle_export(HttpRequest request, Export& served) {
    const auto& path = request.path;
    const bool post = request.method == "POST";
    if (path.size() == 3 && request.method == "GET") {
        request.reply(200, describe(served));
    } else if (path.size() >= 5 && path[3] == "trackers") {
        handle_tracker(std::move(request), served);
    } else if (path.size() == 4 && post && path[3] == "hold") {
        hold(std::move(request), served);
    } else if (path.size() == 4 && post && path[3] == "release") {
        release(std::move(request), served);
    } else if (path.size() == 4 && post && path[3] == "retire") {
        retire(std::move(request), served);
    } else if (path.size() == 4 && post && path[3] == "resize") {
        resize(std::move(request), served);
    } else {
        request.reply_error(404, "there is nothing at this path that takes " + request.method);
    }
}

void ControlApi::handle_tracker(HttpRequest request, Export& served) {
    const std::string name = request.path[4];
    const std::string action = request.path.size() == 6 ? request.path[5] : "";
    const bool post = request.method == "POST";
    if (request.path.size() == 5 && request.method == "PUT") {
        put_tracker(std::move(request), served, name);
        return;
    }
    const bool remove = request.path.size() == 5 && request.method == "DELETE";
    if (!remove && !(post && action == "freeze") && !(post && action == "acknowledge")) {
        request.reply_error(404, "there is nothing at this path that takes " + request.method);
        return;
    }
    const std::string which = "tracker '" + name + "' of " + quoted(served);
    RequestBody body(request.body);
    const auto incarnation = body.optional_number("incarnation", 0, UINT32_MAX);
    const std::uint64_t generation =
        action == "acknowledge" ? body.number("generation", 0, INT64_MAX) : 0;
    body.end();
    TrackerSet& trackers = served.trackers();
    const auto standing = trackers.find(name);
    if (!standing) {
        request.reply_error(404, quoted(served) + " has no tracker '" + name + "'");
    } else if (incarnation && *incarnation != standing->incarnation) {
        // Whoever names it means the tracker it has made, and no later one of that name.
        request.reply_error(409, which + " is another one by now");
    } else if (remove) {
        static_cast<void>(trackers.remove(name));  // it stands: only this thread removes them
        log_debug(which + " is removed");
        request.reply(200, json::object());
    } else if (action == "freeze") {
        const auto frozen = trackers.freeze(name);
        request.reply(200,
                      {{"generation", frozen->generation}, {"dirty_bytes", frozen->dirty_bytes}});
    } else {
        if (trackers.acknowledge(name, generation) == TrackerSet::Acknowledged::yes) {
            request.reply(200, json::object());
        } else {
            request.reply_error(409, which + " is not at generation " + std::to_string(generation));
        }
    }
}

void ControlApi::put_tracker(HttpRequest request, Export& served, const std::string& name) {
    constexpr std::uint64_t kDefaultGranularity = 65536;
    RequestBody body(request.body);
    const std::uint64_t granularity =
        body.optional_number("granularity", TrackerSet::kMinGranularityBytes,
                             TrackerSet::kMaxGranularityBytes)
            .value_or(kDefaultGranularity);
    const bool exclusive = body.flag("exclusive");
    body.end();
    if (!std::has_single_bit(granularity)) {
        throw std::invalid_argument("'granularity' is a power of two");
    }
    if (name.empty() || name.size() > kMaxTrackerNameBytes) {
        throw std::invalid_argument("a tracker's name has 1 to " +
                                    std::to_string(kMaxTrackerNameBytes) + " bytes");
    }
    if (served.read_only()) {
        request.reply_error(409, quoted(served) + " is read-only: nothing can be tracked there");
        return;
    }
    const auto bytes = static_cast<std::uint32_t>(granularity);
    const auto added = exclusive ? served.trackers().add_exclusive(name, bytes)
                                 : served.trackers().add(name, bytes);
    const auto standing = served.trackers().find(name);
    const json answer = {{"name", name},
                         {"granularity", granularity},
                         {"incarnation", standing ? standing->incarnation : 0}};
    switch (added) {
        case TrackerSet::Added::created:
            log_debug("tracker '" + name + "' of " + quoted(served) + " is started");
            request.reply(201, answer);
            break;
        case TrackerSet::Added::exists:
            request.reply(200, answer);
            break;
        case TrackerSet::Added::other_granularity:
            request.reply_error(
                409, "tracker '" + name + "' of " + quoted(served) + " has another granularity");
            break;
        case TrackerSet::Added::taken:
            request.reply_error(409, quoted(served) +
                                         " has an exclusive tracker that is being read, or a "
                                         "shared one named '" +
                                         name + "'");
            break;
        case TrackerSet::Added::too_many:
            request.reply_error(507, quoted(served) + " has as many trackers as it can");
            break;
    }
}

void ControlApi::hold(HttpRequest request, Export& served) {
    RequestBody body(request.body);
    const std::chrono::milliseconds lease(
        body.optional_number("lease_ms", 1, kMaxLeaseMs).value_or(kDefaultLease.count()));
    const std::string id = body.optional_text("hold").value_or("");
    body.end();
    Hold& hold = server_.hold_of(served);
    if (server_.draining()) {
        request.reply_error(503, quoted(served) + " cannot be held: the server stops");
        return;
    }
    if (!id.empty()) {
        if (hold.renew(id, lease)) {
            request.reply(200, {{"hold", id}});
        } else {
            request.reply_error(409, quoted(served) + " is not held by '" + id +
                                         "' any more: the lease has lapsed");
        }
        return;
    }
    // Answered when the last write is out; shared because a std::function is copied.
    auto waiting = std::make_shared<HttpRequest>(std::move(request));
    const auto drained = [waiting, &hold, &served](bool all_out) {
        if (all_out) {
            waiting->reply(200, {{"hold", hold.id()}});
        } else {
            waiting->reply_error(
                409, quoted(served) + ": the lease lapsed before all writes had come back");
        }
    };
    switch (hold.begin(lease, drained)) {
        case Hold::Begun::yes:
            log_debug(quoted(served) + " is held");
            waiting->on_client_left([&hold] { hold.abandon(); });
            break;
        case Hold::Begun::held_by_another:
            waiting->reply_error(409, quoted(served) + " is held already");
            break;
        case Hold::Begun::retired:
            waiting->reply_error(409, server_.moved_sentence(served));
            break;
    }
}

// 409 for one who has no hold; where the disk is, is said first.
void ControlApi::refuse_hold(HttpRequest request, Export& served, const std::string& id) {
    request.reply_error(409, served.gate().retired()
                                 ? server_.moved_sentence(served)
                                 : quoted(served) + " stays here, and is not held by '" + id +
                                       "' (any more): the lease has lapsed, or it was released");
}

void ControlApi::release(HttpRequest request, Export& served) {
    RequestBody body(request.body);
    const std::string id = body.text("hold");
    body.end();
    const auto times = server_.hold_of(served).release(id);
    if (!times) {
        refuse_hold(std::move(request), served, id);
        return;
    }
    log_debug(quoted(served) + " is released");
    request.reply(
        200, {{"longest_wait_ms", to_ms(times->longest_wait)}, {"held_ms", to_ms(times->held)}});
}

void ControlApi::retire(HttpRequest request, Export& served) {
    // What else a caller says of the move is its own affair.
    RequestBody body(request.body);
    const std::string id = body.text("hold");
    const std::string moved_to = body.optional_text("moved_to").value_or("");
    const std::string job = body.optional_text("job").value_or("");
    const auto times = server_.retire(served, id, moved_to, job);
    if (!times) {
        refuse_hold(std::move(request), served, id);
        return;
    }
    request.reply(200,
                  {{"downtime_ms", to_ms(times->longest_wait)}, {"held_ms", to_ms(times->held)}});
}

void ControlApi::resize(HttpRequest request, Export& served) {
    RequestBody(request.body).end();
    switch (served.notice_growth()) {
        case Export::Resized::grown:
            log_info("export '" + served.name() + "' has grown to " +
                     std::to_string(served.size_bytes()) + " bytes");
            [[fallthrough]];
        case Export::Resized::same:
            request.reply(200, {{"size_bytes", served.size_bytes()}});
            break;
        case Export::Resized::smaller:
            request.reply_error(409, quoted(served) + ": its disk is smaller than the " +
                                         std::to_string(served.size_bytes()) +
                                         " bytes that its clients know; stop the server first");
            break;
        case Export::Resized::tracked:
            request.reply_error(409, quoted(served) +
                                         " keeps its size while it is tracked: a mirror or a "
                                         "backup goes by it");
            break;
    }
}

json ControlApi::describe(const Export& served) {
    json trackers = json::array();
    for (const TrackerStatus& each : served.trackers().status()) {
        trackers.push_back({{"name", each.name},
                            {"granularity", each.granularity_bytes},
                            {"generation", each.generation},
                            {"frozen_bytes", each.frozen_bytes},
                            {"dirty_bytes", each.dirty_bytes},
                            {"incarnation", each.incarnation},
                            {"readers", each.readers},
                            {"exclusive", each.exclusive}});
    }
    Statistics statistics;
    server_.add_statistics(served, statistics);
    const int error = served.write_back_error();
    const char* state = served.gate().retired()          ? "retired"
                        : server_.hold_of(served).held() ? "held"
                                                         : "serving";
    return {{"name", served.name()},
            {"path", served.file().path()},
            {"size_bytes", served.size_bytes()},
            {"read_only", served.read_only()},
            {"description", served.options().description},
            {"state", state},
            {"uris", server_.uris(served)},
            {"trackers", trackers},
            {"connections", server_.connections_to(served)},
            {"read_bytes", statistics.read_bytes()},
            {"written_bytes", statistics.written_bytes()},
            {"write_error", error == 0 ? json() : json(error_text(error))}};
}

json ControlApi::describe_connections() {
    json all = json::array();
    for (const Connection& each : server_.connections()) {
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
