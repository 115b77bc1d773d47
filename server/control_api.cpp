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
    if (!id.empty()) {
        if (hold.renew(id, lease)) {
            request.reply(200, {{"hold", id}});
        } else {
            refuse_hold(request, served, id);
        }
        return;
    }
    if (server_.draining()) {
        request.reply_error(503, served.quoted() + " cannot be held: the server stops");
        return;
    }
    if (served.options().read_only) {
        request.reply_error(409, served.quoted() + " is read-only: it has no writers to hold");
        return;
    }
    if (served.landing().expected()) {
        request.reply_error(409, served.quoted() + " is incoming: nobody has it yet to hold it");
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
                    409, served.quoted() + ": the lease lapsed before all writes had come back");
                break;
            case Hold::Drained::given_up:
                waiting->reply_error(503, served.quoted() + " cannot be held: the server stops");
                break;
        }
    };
    switch (hold.begin(lease, answer)) {
        case Hold::Begun::yes:
            log_debug(served.quoted() + " is held");
            waiting->on_client_left([&hold] { hold.abandon(); });
            break;
        case Hold::Begun::held_by_another:
            waiting->reply_error(409, served.quoted() + " is held already");
            break;
        case Hold::Begun::retired:
            waiting->reply_error(409, server_.hand_overs().moved_sentence(served));
            break;
    }
}

// 409 for one who has no hold; where the disk is, is said first.
void ControlApi::refuse_hold(HttpRequest& request, const Export& served, const std::string& id) {
    if (server_.hold_of(served).retiring()) {
        request.reply_error(
            503, served.quoted() + " is being handed over: whether it has moved is not known yet");
    } else if (served.gate().retired()) {
        request.reply_error(409, server_.hand_overs().moved_sentence(served));
    } else if (server_.draining()) {
        request.reply_error(503, served.quoted() + " stays here: the server stops");
    } else {
        request.reply_error(409, served.quoted() + " stays here, and is not held by '" + id +
                                     "' (any more): the lease has lapsed, or it was released");
    }
}

void ControlApi::release(HttpRequest request, Export& served) {
    RequestBody body(request.body);
    const std::string id = body.text("hold");
    body.end();
    auto waiting = std::make_shared<HttpRequest>(std::move(request));
    // Its descriptor is not kept for an answer that may take long.
    waiting->on_client_left(
        [waiting] { waiting->reply_error(503, "whether the disk has moved is not known yet"); });
    server_.hold_of(served).release(id, [this, waiting, &served, id](const auto& times) {
        if (!times) {
            refuse_hold(*waiting, served, id);
            return;
        }
        log_debug(served.quoted() + " is released");
        waiting->reply(200, {{"longest_wait_ms", to_ms(times->longest_wait)},
                             {"held_ms", to_ms(times->held)}});
    });
}

void ControlApi::retire(HttpRequest request, Export& served) {
    // What else a caller says of the move is its own affair.
    RequestBody body(request.body);
    const std::string id = body.text("hold");
    const std::string moved_to = body.optional_text("moved_to").value_or("");
    const std::string job = body.optional_text("job").value_or("");
    hand_over(std::move(request), {{served, id, moved_to}}, job,
              [](const auto& times) { return describe_retired(times.front()); });
}

void ControlApi::retire_together(HttpRequest request) {
    RequestBody body(request.body);
    const std::string job = body.optional_text("job").value_or("");
    std::vector<HandOvers::Disk> disks;
    std::vector<std::string> names;
    for (const json& each : body.objects("exports")) {
        RequestBody disk(each);
        const std::string name = disk.text("name");
        Export* served = server_.exports().find(name);
        if (served == nullptr) {
            request.reply_error(404, "there is no export '" + name + "'");
            return;
        }
        if (std::any_of(disks.begin(), disks.end(),
                        [&](const auto& other) { return &other.moved == served; })) {
            throw std::invalid_argument(served->quoted() + " is named twice");
        }
        disks.push_back({*served, disk.text("hold"), disk.optional_text("moved_to").value_or("")});
        names.push_back(name);
    }
    hand_over(std::move(request), std::move(disks), job, [names](const auto& times) {
        json all = json::array();
        for (std::size_t i = 0; i < names.size(); ++i) {
            json one = describe_retired(times[i]);
            one["name"] = names[i];
            all.push_back(one);
        }
        return json{{"exports", all}};
    });
}

void ControlApi::hand_over(HttpRequest request, std::vector<HandOvers::Disk> disks,
                           const std::string& job,
                           std::function<json(const std::vector<HoldTimes>&)> describe_moved) {
    auto waiting = std::make_shared<HttpRequest>(std::move(request));
    const auto answer = [this, waiting, describe_moved = std::move(describe_moved)](
                            const HandOvers::Outcome& outcome) {
        switch (outcome.kind) {
            case HandOvers::Outcome::Kind::moved:
                waiting->reply(200, describe_moved(outcome.times));
                break;
            case HandOvers::Outcome::Kind::not_held:
                refuse_hold(*waiting, outcome.disk->moved, outcome.disk->hold_id);
                break;
            case HandOvers::Outcome::Kind::under_way:
                waiting->reply_error(503, outcome.disk->moved.quoted() +
                                              " is being handed over, or was to be: the storage of "
                                              "the state directory has not answered yet");
                break;
            case HandOvers::Outcome::Kind::not_recorded:
                waiting->reply_error(500, outcome.error);
                break;
        }
    };
    server_.hand_overs().begin(std::move(disks), job, answer);
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
            log_info(served.quoted() + " has grown to " + std::to_string(served.size_bytes()) +
                     " bytes");
            [[fallthrough]];
        case Export::Resized::same:
            request.reply(200, {{"size_bytes", served.size_bytes()}});
            break;
        case Export::Resized::smaller:
            request.reply_error(409, served.quoted() + ": its disk is smaller than the " +
                                         std::to_string(served.size_bytes()) +
                                         " bytes that its clients know; stop the server first");
            break;
        case Export::Resized::tracked:
            request.reply_error(409, served.quoted() +
                                         " keeps its size while it is tracked: a mirror or a "
                                         "backup goes by it");
            break;
    }
}

}  // namespace nbdm
