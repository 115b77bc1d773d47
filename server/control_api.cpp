// SPDX-License-Identifier: Apache-2.0
#include "server/control_api.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <utility>

#include "control/http_routes.h"
#include "control/log.h"
#include "control/prometheus.h"
#include "control/request_body.h"
#include "server/description.h"
#include "server/metrics.h"

namespace nbdm {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kDefaultLease{5000};
constexpr std::uint64_t kMaxLeaseMs = 60'000;
constexpr std::size_t kMaxTrackerNameBytes = 256;
// A writer that may go no faster is as good as stopped.
constexpr std::uint64_t kMinThrottledRate = 64 << 10;

double to_ms(std::chrono::nanoseconds duration) {
    return std::chrono::duration<double, std::milli>(duration).count();
}

json describe_retired(const HoldTimes& times) {
    return {{"downtime_ms", to_ms(times.longest_wait)}, {"held_ms", to_ms(times.held)}};
}

std::string quoted(const Export& served) {
    return "export '" + served.name() + "'";
}

// Of a path like /v1/exports/NAME/trackers/T.
const std::string& tracker_in(const HttpRequest& request) {
    return request.path[4];
}

std::string quoted_tracker(const HttpRequest& request, const Export& served) {
    return "tracker '" + tracker_in(request) + "' of " + quoted(served);
}

// Whoever names it means the tracker it has made, and no later one of that name.
std::optional<std::uint64_t> incarnation_in(RequestBody& body) {
    return body.optional_number("incarnation", 0, UINT32_MAX);
}

// Whether the tracker of the path stands, and is of that incarnation if one is given; otherwise the
// request is answered.
bool is_meant(HttpRequest& request, const Export& served,
              std::optional<std::uint64_t> incarnation) {
    const auto standing = served.trackers().find(tracker_in(request));
    if (!standing) {
        request.reply_error(404, quoted(served) + " has no tracker '" + tracker_in(request) + "'");
        return false;
    }
    if (incarnation && *incarnation != standing->incarnation) {
        request.reply_error(409, quoted_tracker(request, served) + " is another one by now");
        return false;
    }
    return true;
}

}  // namespace

void ControlApi::handle(HttpRequest request) {
    using Handler = void (ControlApi::*)(HttpRequest);
    static constexpr HttpRoute<Handler> kRoutes[] = {
        {"GET", "/metrics", &ControlApi::show_metrics},
        {"GET", "/v1/connections", &ControlApi::show_connections},
        {"GET", "/v1/exports", &ControlApi::show_exports},
        {"POST", "/v1/retire", &ControlApi::retire_together},
    };
    const auto& path = request.path;
    if (path.size() >= 3 && path[0] == "v1" && path[1] == "exports") {
        handle_export(std::move(request));
    } else if (const Handler handler = find_handler(kRoutes, request)) {
        (this->*handler)(std::move(request));
    }
}

void ControlApi::handle_export(HttpRequest request) {
    using Handler = void (ControlApi::*)(HttpRequest, Export&);
    static constexpr HttpRoute<Handler> kRoutes[] = {
        {"GET", "/v1/exports/*", &ControlApi::show_export},
        {"PUT", "/v1/exports/*/trackers/*", &ControlApi::put_tracker},
        {"DELETE", "/v1/exports/*/trackers/*", &ControlApi::remove_tracker},
        {"POST", "/v1/exports/*/trackers/*/freeze", &ControlApi::freeze},
        {"POST", "/v1/exports/*/trackers/*/acknowledge", &ControlApi::acknowledge},
        {"POST", "/v1/exports/*/hold", &ControlApi::hold},
        {"POST", "/v1/exports/*/release", &ControlApi::release},
        {"POST", "/v1/exports/*/retire", &ControlApi::retire},
        {"POST", "/v1/exports/*/throttle", &ControlApi::throttle},
        {"POST", "/v1/exports/*/resize", &ControlApi::resize},
    };
    // The empty name is written as "-".
    const std::string name = request.path[2] == "-" ? "" : request.path[2];
    Export* served = server_.exports().find(name);
    if (served == nullptr) {
        request.reply_error(404, "there is no export '" + name + "'");
    } else if (const Handler handler = find_handler(kRoutes, request)) {
        (this->*handler)(std::move(request), *served);
    }
}

void ControlApi::show_metrics(HttpRequest request) {
    request.reply_text(200, PrometheusText::kContentType, metrics_text(server_));
}

void ControlApi::show_connections(HttpRequest request) {
    request.reply(200, describe_connections(server_));
}

void ControlApi::show_exports(HttpRequest request) {
    json all = json::array();
    for (const auto& served : server_.exports().all()) {
        all.push_back(describe(server_, *served));
    }
    request.reply(200, {{"exports", all}});
}

void ControlApi::show_export(HttpRequest request, Export& served) {
    request.reply(200, describe(server_, served));
}

void ControlApi::remove_tracker(HttpRequest request, Export& served) {
    RequestBody body(request.body);
    const auto incarnation = incarnation_in(body);
    body.end();
    if (is_meant(request, served, incarnation)) {
        // It stands: only this thread removes them.
        static_cast<void>(served.trackers().remove(tracker_in(request)));
        log_debug(quoted_tracker(request, served) + " is removed");
        request.reply(200, json::object());
    }
}

void ControlApi::freeze(HttpRequest request, Export& served) {
    RequestBody body(request.body);
    const auto incarnation = incarnation_in(body);
    body.end();
    if (is_meant(request, served, incarnation)) {
        const auto frozen = served.trackers().freeze(tracker_in(request));
        request.reply(200,
                      {{"generation", frozen->generation}, {"dirty_bytes", frozen->dirty_bytes}});
    }
}

void ControlApi::acknowledge(HttpRequest request, Export& served) {
    RequestBody body(request.body);
    const auto incarnation = incarnation_in(body);
    const std::uint64_t generation = body.number("generation", 0, INT64_MAX);
    const auto up_to = body.optional_number("up_to", 0, INT64_MAX);
    body.end();
    if (!is_meant(request, served, incarnation)) {
        return;
    }
    TrackerSet& trackers = served.trackers();
    const std::string name = tracker_in(request);
    const auto done = up_to ? trackers.acknowledge_up_to(name, generation, *up_to)
                            : trackers.acknowledge(name, generation);
    if (done == TrackerSet::Acknowledged::yes) {
        request.reply(200, json::object());
    } else {
        request.reply_error(409, quoted_tracker(request, served) + " is not at generation " +
                                     std::to_string(generation));
    }
}

void ControlApi::put_tracker(HttpRequest request, Export& served) {
    constexpr std::uint64_t kDefaultGranularity = 65536;
    const std::string& name = tracker_in(request);
    RequestBody body(request.body);
    const std::uint64_t granularity =
        body.optional_number("granularity", TrackerSet::kMinGranularityBytes,
                             TrackerSet::kMaxGranularityBytes)
            .value_or(kDefaultGranularity);
    const bool exclusive = body.flag("exclusive");
    const bool all_dirty = body.flag("all_dirty");
    body.end();
    if (all_dirty && !exclusive) {
        throw std::invalid_argument("'all_dirty' is for an exclusive tracker");
    }
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
    const auto start = all_dirty ? TrackerSet::Start::all_dirty : TrackerSet::Start::clean;
    const auto added = exclusive ? served.trackers().add_exclusive(name, bytes, start)
                                 : served.trackers().add(name, bytes);
    const auto standing = served.trackers().find(name);
    const json answer = {{"name", name},
                         {"granularity", granularity},
                         {"incarnation", standing ? standing->incarnation : 0}};
    switch (added) {
        case TrackerSet::Added::created:
            log_debug(quoted_tracker(request, served) + " is started");
            request.reply(201, answer);
            break;
        case TrackerSet::Added::exists:
            request.reply(200, answer);
            break;
        case TrackerSet::Added::other_granularity:
            request.reply_error(409, quoted_tracker(request, served) + " has another granularity");
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
    if (served.landing().expected()) {
        request.reply_error(409, quoted(served) + " is incoming: nobody has it yet to hold it");
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
    const auto times = server_.retire({{served, id, moved_to}}, job);
    if (!times) {
        refuse_hold(std::move(request), served, id);
        return;
    }
    request.reply(200, describe_retired(times->front()));
}

void ControlApi::retire_together(HttpRequest request) {
    RequestBody body(request.body);
    const std::string job = body.optional_text("job").value_or("");
    std::vector<Server::Retirement> disks;
    for (const json& each : body.objects("exports")) {
        RequestBody disk(each);
        const std::string name = disk.text("name");
        Export* served = server_.exports().find(name);
        if (served == nullptr) {
            request.reply_error(404, "there is no export '" + name + "'");
            return;
        }
        if (std::any_of(disks.begin(), disks.end(),
                        [&](const auto& other) { return &other.retired == served; })) {
            throw std::invalid_argument(quoted(*served) + " is named twice");
        }
        disks.push_back({*served, disk.text("hold"), disk.optional_text("moved_to").value_or("")});
    }
    const auto times = server_.retire(disks, job);
    if (!times) {
        const auto lost = std::find_if(disks.begin(), disks.end(), [&](const auto& disk) {
            return !server_.hold_of(disk.retired).may_retire(disk.hold_id);
        });
        refuse_hold(std::move(request), lost->retired, lost->hold_id);
        return;
    }
    json all = json::array();
    for (std::size_t i = 0; i < disks.size(); ++i) {
        json one = describe_retired(times->at(i));
        one["name"] = disks[i].retired.name();
        all.push_back(one);
    }
    request.reply(200, {{"exports", all}});
}

void ControlApi::throttle(HttpRequest request, Export& served) {
    RequestBody body(request.body);
    const auto delay_us = body.optional_number("delay_us", 0, Throttle::kMaxDelay.count());
    const auto bytes_per_s = body.optional_number("bytes_per_s", kMinThrottledRate, INT64_MAX);
    const auto lease_ms = body.optional_number("lease_ms", 1, kMaxLeaseMs);
    body.end();
    if (delay_us && bytes_per_s) {
        throw std::invalid_argument("one of 'delay_us' and 'bytes_per_s' is expected, not both");
    }
    Throttle::End end;
    if (lease_ms) {
        end = Throttle::Clock::now() + std::chrono::milliseconds(*lease_ms);
    }
    if (bytes_per_s) {
        served.throttle().limit(*bytes_per_s, end);
    } else if (delay_us.value_or(0) > 0) {
        served.throttle().delay(std::chrono::microseconds(*delay_us), end);
    } else {
        served.throttle().stop();
    }
    request.reply(200, {{"throttle", describe_throttle(served)}});
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

}  // namespace nbdm
