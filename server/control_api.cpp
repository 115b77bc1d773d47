// SPDX-License-Identifier: Apache-2.0
#include "server/control_api.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "control/http_routes.h"
#include "control/log.h"
#include "control/prometheus.h"
#include "control/request_body.h"
#include "server/description.h"
#include "server/metrics.h"
#include "server/tracker_api.h"

namespace nbdm {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kDefaultLease{5000};
constexpr std::uint64_t kMaxLeaseMs = 60'000;
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
    } else if (request.path.size() > 3 && request.path[3] == "trackers") {
        handle_tracker(std::move(request), *served);
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
            refuse_hold(std::move(request), served, id);
        }
        return;
    }
    if (served.landing().expected()) {
        request.reply_error(409, quoted(served) + " is incoming: nobody has it yet to hold it");
        return;
    }
    // Answered when the last write is out; shared because a std::function is copied.
    auto waiting = std::make_shared<HttpRequest>(std::move(request));
    const auto answer = [waiting, &hold, &served](Hold::Drained drained) {
        switch (drained) {
            case Hold::Drained::yes:
                waiting->reply(200, {{"hold", hold.id()}});
                break;
            case Hold::Drained::lapsed:
                waiting->reply_error(
                    409, quoted(served) + ": the lease lapsed before all writes had come back");
                break;
            case Hold::Drained::given_up:
                waiting->reply_error(503, quoted(served) + " cannot be held: the server stops");
                break;
        }
    };
    switch (hold.begin(lease, answer)) {
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
