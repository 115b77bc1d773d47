// SPDX-License-Identifier: Apache-2.0
#include "client/source_server.h"

#include <algorithm>
#include <poll.h>
#include <unistd.h>

#include "control/uri.h"

namespace nbdm {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kSoon{2000};
// Between two looks at something that is about to change.
constexpr int kStepMs = 50;
// How long the connections of a mirror that died may still be seen.
constexpr std::chrono::seconds kDeadMirrorLimit{3};
// Of the names of mirror jobs' trackers.
const std::string kMirrorPrefix = "mirror.";

// An answer that is not what it should be says nothing of what the server did.
template <typename T>
T field(const json& answer, const char* key) {
    try {
        return answer.at(key).get<T>();
    } catch (const json::exception& error) {
        throw NoAnswer(std::string("source server: unexpected answer: ") + error.what());
    }
}

ClientTimes::Kind times_of(const json& latency, const char* kind) {
    const json of_kind = field<json>(latency, kind);
    return {.requests = field<std::uint64_t>(of_kind, "requests"),
            .total_us = field<std::uint64_t>(of_kind, "total_us")};
}

}  // namespace

void ClientTimes::add(const ClientTimes& other) noexcept {
    reads.requests += other.reads.requests;
    reads.total_us += other.reads.total_us;
    writes.requests += other.writes.requests;
    writes.total_us += other.writes.total_us;
    throttled = throttled || other.throttled;
}

SourceServer::SourceServer(const Location& location, const Cancellation& cancellation)
    : location_(location),
      cancellation_(cancellation),
      base_(location.control_path()),
      http_(location.control_socket) {}

json SourceServer::ask(const std::string& method, const std::string& path, const json& body,
                       std::chrono::milliseconds limit, bool may_cancel) {
    return ask_at(method, base_ + path, body, limit, may_cancel);
}

json SourceServer::ask_at(const std::string& method, const std::string& path, const json& body,
                          std::chrono::milliseconds limit, bool may_cancel) {
    const auto cancelled = [&] { return may_cancel && cancellation_.requested(); };
    try {
        const HttpResponse response = http_.request(method, path, body, limit, cancelled);
        if (!response.ok()) {
            throw JobError("source server: " + response.error());
        }
        return response.body;
    } catch (const HttpError& error) {
        if (cancelled()) {
            throw Cancelled();
        }
        throw NoAnswer(std::string("source server: ") + error.what());
    }
}

SourceServer::ExportStatus SourceServer::status(std::chrono::milliseconds limit, bool may_cancel) {
    const json answer = ask("GET", "", nullptr, limit, may_cancel);
    ExportStatus status;
    status.disk = {.path = field<std::string>(answer, "path"),
                   .place = field<std::string>(answer, "place"),
                   .direct = field<bool>(answer, "direct")};
    // Or somebody with fewer rights would choose what is read for him.
    const std::optional<uid_t> peer = http_.peer();
    if (!peer || (*peer != 0 && *peer != ::geteuid())) {
        status.disk.place.clear();
    }
    status.state = field<std::string>(answer, "state");
    if (const json moved = field<json>(answer, "moved"); moved.is_object()) {
        status.moved_by = field<std::string>(moved, "job");
        status.moved_to = field<std::string>(moved, "to");
        status.moved_at = field<std::string>(moved, "at");
    }
    status.read_only = field<bool>(answer, "read_only");
    status.size_bytes = field<std::uint64_t>(answer, "size_bytes");
    status.uris = field<std::vector<std::string>>(answer, "uris");
    for (const json& each : field<json>(answer, "trackers")) {
        status.trackers.push_back(
            {.name = field<std::string>(each, "name"),
             .incarnation = field<std::uint64_t>(each, "incarnation"),
             .readers = field<unsigned>(each, "readers"),
             .exclusive = field<bool>(each, "exclusive"),
             .dirty_bytes = field<std::uint64_t>(each, "dirty_bytes"),
             .unacknowledged_bytes = field<std::uint64_t>(each, "unacknowledged_bytes")});
    }
    const json latency = field<json>(answer, "latency");
    status.clients = {.reads = times_of(latency, "read"),
                      .writes = times_of(latency, "write"),
                      .throttled = !field<json>(answer, "throttle").is_null()};
    if (status.uris.empty()) {
        throw JobError("source server: it listens nowhere, so that " + location_.text +
                       " cannot be read");
    }
    const auto local = std::find_if(status.uris.begin(), status.uris.end(),
                                    [](const auto& uri) { return uri.starts_with("nbd+unix:"); });
    status.address = Location::parse(local != status.uris.end() ? *local : status.uris.front());
    status.address.text = location_.text;
    return status;
}

bool SourceServer::has_client(const std::string& address) {
    // The server may not have noted yet which export a client has just agreed on.
    constexpr int kLooks = 20;
    for (int look = 0; look < kLooks; ++look) {
        const json answer = ask_at("GET", "/v1/connections", nullptr, kAnswerLimit);
        const auto connections = field<std::vector<json>>(answer, "connections");
        const auto found = std::find_if(connections.begin(), connections.end(), [&](const auto& c) {
            return field<std::string>(c, "peer") == address;
        });
        if (found == connections.end()) {
            return false;
        }
        if (!field<json>(*found, "export").is_null()) {
            return (*found)["export"] == location_.export_name;
        }
        ::poll(nullptr, 0, kStepMs);
    }
    return true;
}

SourceServer::Tracker SourceServer::start_tracker(const std::string& job,
                                                  std::uint32_t granularity_bytes) {
    const std::string name = kMirrorPrefix + job;
    // The connections of a mirror that was just killed may take a moment to end.
    const auto deadline = std::chrono::steady_clock::now() + kDeadMirrorLimit;
    for (;;) {
        try {
            const json answer =
                ask("PUT", "/trackers/" + percent_encode(name),
                    {{"granularity", granularity_bytes}, {"exclusive", true}, {"all_dirty", true}},
                    kAnswerLimit);
            return {.name = name, .incarnation = field<std::uint64_t>(answer, "incarnation")};
        } catch (const NoAnswer&) {
            throw;
        } catch (const JobError&) {
            if (std::chrono::steady_clock::now() >= deadline) {
                check_no_other_mirror();
                throw;
            }
        }
        ::poll(nullptr, 0, kStepMs);
    }
}

bool SourceServer::take_up_tracker(const Tracker& tracker) {
    const auto deadline = std::chrono::steady_clock::now() + kDeadMirrorLimit;
    for (;;) {
        const std::vector<TrackerStatus> trackers = status().trackers;
        const auto own = std::find_if(trackers.begin(), trackers.end(), [&](const auto& each) {
            return each.incarnation == tracker.incarnation && each.name == tracker.name;
        });
        if (own == trackers.end() || own->readers == 0) {
            return own != trackers.end();
        }
        if (std::chrono::steady_clock::now() >= deadline) {
            check_no_other_mirror();
        }
        ::poll(nullptr, 0, kStepMs);
    }
}

void SourceServer::check_no_other_mirror() {
    for (const TrackerStatus& each : status().trackers) {
        if (each.exclusive && each.readers > 0) {
            const bool is_mirror = each.name.starts_with(kMirrorPrefix);
            throw JobError(location_.text + " is being mirrored already, by job '" +
                           each.name.substr(is_mirror ? kMirrorPrefix.size() : 0) + "'");
        }
    }
}

void SourceServer::check_stands(const Tracker& own) {
    const std::vector<TrackerStatus> trackers = status().trackers;
    if (std::none_of(trackers.begin(), trackers.end(), [&](const auto& each) {
            return each.incarnation == own.incarnation && each.readers > 0;
        })) {
        check_no_other_mirror();
        throw TrackerGone("the tracker of " + location_.text + " was removed");
    }
}

void SourceServer::drop_tracker(const Tracker& tracker) noexcept {
    try {
        http_.request("DELETE", base_ + "/trackers/" + percent_encode(tracker.name),
                      {{"incarnation", tracker.incarnation}}, kAnswerLimit);
    } catch (const std::exception&) {
        return;
    }
}

SourceServer::Frozen SourceServer::freeze(const Tracker& tracker, Leave leave) {
    const bool leaves = leave == Leave::rewritten;
    const json answer =
        ask_tracker(tracker, "freeze", leaves ? json{{"leave_rewritten", true}} : json::object());
    return {.generation = field<std::uint64_t>(answer, "generation"),
            .dirty_bytes = field<std::uint64_t>(answer, "dirty_bytes"),
            .left_bytes = leaves ? field<std::uint64_t>(answer, "left_bytes") : 0};
}

std::uint64_t SourceServer::refreeze(const Tracker& tracker, std::uint64_t generation,
                                     Range range) {
    return field<std::uint64_t>(
        ask_tracker(tracker, "refreeze",
                    {{"generation", generation}, {"from", range.offset}, {"to", range.end()}}),
        "dirty_bytes");
}

std::uint64_t SourceServer::acknowledge(const Tracker& tracker, std::uint64_t generation) {
    return field<std::uint64_t>(ask_tracker(tracker, "acknowledge", {{"generation", generation}}),
                                "dirty_bytes");
}

void SourceServer::acknowledge_up_to(const Tracker& tracker, std::uint64_t generation,
                                     std::uint64_t offset_bytes) {
    ask_tracker(tracker, "acknowledge", {{"generation", generation}, {"up_to", offset_bytes}});
}

json SourceServer::ask_tracker(const Tracker& tracker, const std::string& action, json body) {
    body["incarnation"] = tracker.incarnation;
    try {
        return ask("POST", "/trackers/" + percent_encode(tracker.name) + "/" + action, body,
                   kAnswerLimit);
    } catch (const NoAnswer&) {
        throw;
    } catch (const JobError& error) {
        throw TrackerGone(error.what());
    }
}

void SourceServer::throttle(std::chrono::microseconds delay, std::chrono::milliseconds lease) {
    // A job that is cancelled ends it all the same, unless the server does not answer soon.
    const bool ends = delay.count() == 0;
    ask("POST", "/throttle", {{"delay_us", delay.count()}, {"lease_ms", lease.count()}},
        ends ? kSoon : kAnswerLimit, !ends);
}

std::string SourceServer::hold(std::chrono::milliseconds lease) {
    // The server answers when the last write is back or the lease has lapsed.
    return field<std::string>(
        ask("POST", "/hold", {{"lease_ms", lease.count()}}, lease + kAnswerLimit), "hold");
}

void SourceServer::renew(const std::string& hold, std::chrono::milliseconds lease) {
    ask("POST", "/hold", {{"hold", hold}, {"lease_ms", lease.count()}}, lease, false);
}

std::string SourceServer::state() {
    return field<std::string>(ask("GET", "", nullptr, kAnswerLimit, false), "state");
}

double SourceServer::release(const std::string& hold) {
    return field<double>(ask("POST", "/release", {{"hold", hold}}, kAnswerLimit, false),
                         "longest_wait_ms");
}

double SourceServer::retire(const std::string& hold, const std::string& moved_to,
                            const std::string& job) {
    return field<double>(
        ask("POST", "/retire", {{"hold", hold}, {"moved_to", moved_to}, {"job", job}}, kAnswerLimit,
            false),
        "downtime_ms");
}

double SourceServer::retire_together(const std::vector<Retirement>& disks, const std::string& job) {
    json exports = json::array();
    for (const Retirement& disk : disks) {
        exports.push_back(
            {{"name", disk.export_name}, {"hold", disk.hold}, {"moved_to", disk.moved_to}});
    }
    const json answer =
        ask_at("POST", "/v1/retire", {{"exports", exports}, {"job", job}}, kAnswerLimit, false);
    double longest_ms = 0;
    for (const json& each : field<json>(answer, "exports")) {
        longest_ms = std::max(longest_ms, field<double>(each, "downtime_ms"));
    }
    return longest_ms;
}

}  // namespace nbdm
