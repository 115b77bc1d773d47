// SPDX-License-Identifier: Apache-2.0
#include "server/tracker_api.h"

#include <bit>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "control/http_routes.h"
#include "control/log.h"
#include "control/request_body.h"
#include "control/utf8.h"

namespace nbdm {

using nlohmann::json;

namespace {

constexpr std::size_t kMaxTrackerNameBytes = 256;

// Of a path like /v1/exports/NAME/trackers/T.
const std::string& tracker_in(const HttpRequest& request) {
    return request.path[4];
}

std::string quoted_tracker(const HttpRequest& request, const Export& served) {
    return "tracker '" + tracker_in(request) + "' of " + served.quoted();
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
        request.reply_error(404, served.quoted() + " has no tracker '" + tracker_in(request) + "'");
        return false;
    }
    if (incarnation && *incarnation != standing->incarnation) {
        request.reply_error(409, quoted_tracker(request, served) + " is another one by now");
        return false;
    }
    return true;
}

void refuse_generation(HttpRequest& request, const Export& served, std::uint64_t generation) {
    request.reply_error(409, quoted_tracker(request, served) + " is not at generation " +
                                 std::to_string(generation));
}

void remove_tracker(HttpRequest request, Export& served) {
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

void freeze(HttpRequest request, Export& served) {
    RequestBody body(request.body);
    const auto incarnation = incarnation_in(body);
    const Leave leave = body.flag("leave_rewritten") ? Leave::rewritten : Leave::nothing;
    body.end();
    if (is_meant(request, served, incarnation)) {
        const auto frozen = served.trackers().freeze(tracker_in(request), leave);
        request.reply(200, {{"generation", frozen->generation},
                            {"dirty_bytes", frozen->dirty_bytes},
                            {"left_bytes", frozen->left_bytes}});
    }
}

void refreeze(HttpRequest request, Export& served) {
    RequestBody body(request.body);
    const auto incarnation = incarnation_in(body);
    const std::uint64_t generation = body.number("generation", 0, INT64_MAX);
    const std::uint64_t from = body.number("from", 0, served.size_bytes());
    const std::uint64_t to = body.number("to", from, served.size_bytes());
    body.end();
    if (!is_meant(request, served, incarnation)) {
        return;
    }
    const auto found =
        served.trackers().refreeze(tracker_in(request), generation, Range::from_to(from, to));
    if (found) {
        request.reply(200, {{"dirty_bytes", *found}});
    } else {
        refuse_generation(request, served, generation);
    }
}

void acknowledge(HttpRequest request, Export& served) {
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
        request.reply(200,
                      up_to ? json::object() : json{{"dirty_bytes", trackers.dirty_bytes(name)}});
    } else {
        refuse_generation(request, served, generation);
    }
}

void check_name(const std::string& name) {
    if (name.empty() || name.size() > kMaxTrackerNameBytes || name.find('\0') != name.npos ||
        !is_utf8(name)) {
        throw std::invalid_argument("a tracker's name has 1 to " +
                                    std::to_string(kMaxTrackerNameBytes) + " bytes of UTF-8");
    }
}

void put_tracker(HttpRequest request, Export& served) {
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
    check_name(name);
    if (served.read_only()) {
        request.reply_error(409, served.quoted() + " is read-only: nothing can be tracked there");
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
            request.reply_error(409, served.quoted() +
                                         (exclusive ? " has an exclusive tracker that is being "
                                                      "read, or a shared one named '"
                                                    : " has an exclusive tracker named '") +
                                         name + "'");
            break;
        case TrackerSet::Added::too_many:
            request.reply_error(507, served.quoted() + " has as many trackers as it can");
            break;
    }
}

}  // namespace

void handle_tracker(HttpRequest request, Export& served) {
    using Handler = void (*)(HttpRequest, Export&);
    static constexpr HttpRoute<Handler> kRoutes[] = {
        {"PUT", "/v1/exports/*/trackers/*", &put_tracker},
        {"DELETE", "/v1/exports/*/trackers/*", &remove_tracker},
        {"POST", "/v1/exports/*/trackers/*/freeze", &freeze},
        {"POST", "/v1/exports/*/trackers/*/refreeze", &refreeze},
        {"POST", "/v1/exports/*/trackers/*/acknowledge", &acknowledge},
    };
    if (const Handler handler = find_handler(kRoutes, request)) {
        handler(std::move(request), served);
    }
}

}  // namespace nbdm
