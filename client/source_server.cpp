// SPDX-License-Identifier: Apache-2.0
#include "client/source_server.h"

#include <algorithm>

#include "control/uri.h"

namespace nbdm {

using nlohmann::json;

namespace {

// The server answers from its loop, in milliseconds; a durable record waits for a disk.
constexpr std::chrono::milliseconds kAnswerLimit{10'000};

}  // namespace

SourceServer::SourceServer(const Location& location, const Cancellation& cancellation)
    : location_(location),
      cancellation_(cancellation),
      base_("/v1/exports/" +
            (location.export_name.empty() ? "-" : percent_encode(location.export_name))),
      http_(location.control_socket) {}

json SourceServer::ask(const std::string& method, const std::string& path, const json& body,
                       std::chrono::milliseconds limit, bool may_cancel) {
    const auto cancelled = [&] { return may_cancel && cancellation_.requested(); };
    try {
        const HttpResponse response = http_.request(method, base_ + path, body, limit, cancelled);
        if (!response.ok()) {
            throw JobError("source server: " + response.error());
        }
        return response.body;
    } catch (const HttpError& error) {
        if (cancelled()) {
            throw Cancelled();
        }
        throw NoAnswer(std::string("source server: ") + error.what());
    } catch (const json::exception& error) {
        throw JobError(std::string("source server: unexpected answer: ") + error.what());
    }
}

SourceServer::About SourceServer::about(const std::string& tracker) {
    const json answer = ask("GET", "", nullptr, kAnswerLimit);
    About about;
    about.path = answer.at("path");
    about.state = answer.at("state");
    about.read_only = answer.at("read_only");
    about.size_bytes = answer.at("size_bytes");
    about.uris = answer.at("uris").get<std::vector<std::string>>();
    for (const json& each : answer.at("trackers")) {
        if (each.at("name") == tracker) {
            about.dirty_bytes = each.at("dirty_bytes").get<std::uint64_t>() +
                                each.at("frozen_bytes").get<std::uint64_t>();
        }
    }
    if (about.uris.empty()) {
        throw JobError("source server: it listens nowhere, so that " + location_.text +
                       " cannot be read");
    }
    const auto local = std::find_if(about.uris.begin(), about.uris.end(),
                                    [](const auto& uri) { return uri.starts_with("nbd+unix:"); });
    about.address = Location::parse(local != about.uris.end() ? *local : about.uris.front());
    about.address.text = location_.text;
    return about;
}

void SourceServer::start_tracker(const std::string& name, std::uint32_t granularity_bytes) {
    drop_tracker(name);
    ask("PUT", "/trackers/" + percent_encode(name), {{"granularity", granularity_bytes}},
        kAnswerLimit);
}

void SourceServer::drop_tracker(const std::string& name) noexcept {
    try {
        http_.request("DELETE", base_ + "/trackers/" + percent_encode(name), nullptr, kAnswerLimit);
    } catch (const std::exception&) {
        return;
    }
}

SourceServer::Frozen SourceServer::freeze(const std::string& tracker) {
    const json answer = ask("POST", "/trackers/" + percent_encode(tracker) + "/freeze",
                            json::object(), kAnswerLimit);
    return {.generation = answer.at("generation"), .dirty_bytes = answer.at("dirty_bytes")};
}

void SourceServer::acknowledge(const std::string& tracker, std::uint64_t generation) {
    ask("POST", "/trackers/" + percent_encode(tracker) + "/acknowledge",
        {{"generation", generation}}, kAnswerLimit);
}

std::string SourceServer::hold(std::chrono::milliseconds lease) {
    return ask("POST", "/hold", {{"lease_ms", lease.count()}}, lease + kAnswerLimit).at("hold");
}

void SourceServer::renew(const std::string& hold, std::chrono::milliseconds lease) {
    ask("POST", "/hold", {{"hold", hold}, {"lease_ms", lease.count()}}, lease);
}

std::string SourceServer::state() {
    return ask("GET", "", nullptr, kAnswerLimit, false).at("state");
}

double SourceServer::release(const std::string& hold) {
    return ask("POST", "/release", {{"hold", hold}}, kAnswerLimit, false).at("longest_wait_ms");
}

double SourceServer::retire(const std::string& hold, const std::string& moved_to,
                            const std::string& job) {
    return ask("POST", "/retire", {{"hold", hold}, {"moved_to", moved_to}, {"job", job}},
               kAnswerLimit, false)
        .at("downtime_ms");
}

}  // namespace nbdm
