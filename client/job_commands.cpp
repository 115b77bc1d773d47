// SPDX-License-Identifier: Apache-2.0
#include "client/job_commands.h"

#include <chrono>
#include <filesystem>
#include <iostream>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

#include "client/cancellation.h"
#include "client/job_control.h"
#include "control/durable_file.h"
#include "control/http_client.h"
#include "control/runtime_paths.h"
#include "control/size.h"
#include "control/unix_socket.h"

namespace nbdm {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kAnswerLimit{5'000};
// A cutover waits until the job is ready, which may take as long as the copy does.
constexpr std::chrono::hours kCutoverLimit{24 * 7};

// Of the files in a directory (none when there is no such directory).
std::set<std::string> names_in(const std::string& directory, const std::string& suffix) {
    std::set<std::string> names;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        if (entry.path().extension() == suffix) {
            names.insert(entry.path().stem());
        }
    }
    if (error && error != std::errc::no_such_file_or_directory) {
        throw JobError("cannot look into '" + directory + "': " + error.message());
    }
    return names;
}

bool runs(const std::string& job) {
    return unix_socket_answers(job_socket(job));
}

// The last state on disk.
std::optional<json> read_state(const std::string& job) {
    const std::optional<std::string> text = read_file(job_state_path(job));
    if (!text) {
        return std::nullopt;
    }
    json state = json::parse(*text, nullptr, false);
    if (!state.is_object()) {
        throw JobError("the state of job '" + job + "' in '" + job_state_path(job) +
                       "' is damaged");
    }
    return state;
}

// Of a job whose process died without saying so, with that said.
std::optional<json> recorded(const std::string& job) {
    std::optional<json> read = read_state(job);
    if (!read) {
        return std::nullopt;
    }
    json& state = *read;
    const std::string phase = state.value("phase", "");
    if (phase != "done" && phase != "failed" && phase != "cancelled") {
        state["phase"] = "failed";
        state["error"] =
            "the mirror process ended while " + phase +
            (phase == "cutting_over" ? "; whether the disk has moved, the source's server knows"
                                     : "; the source was in service") +
            (read_file(job_record_path(job)) ? "; --resume goes on with what is left" : "");
    }
    return read;
}

std::optional<json> find(const std::string& job) {
    if (!runs(job)) {
        return recorded(job);
    }
    try {
        return HttpClient(job_socket(job)).request("GET", "/v1/job", nullptr, kAnswerLimit).body;
    } catch (const HttpError& error) {
        // It may have ended between the two looks; or it was stopped, or hangs.
        if (!runs(job)) {
            return recorded(job);
        }
        std::optional<json> state = read_state(job);
        if (state) {
            (*state)["error"] = error.what();
        }
        return state;
    }
}

HttpClient client_of(const std::string& job) {
    if (!runs(job)) {
        const auto state = recorded(job);
        throw JobError(state ? "job '" + job + "' has ended: " + state->value("phase", "")
                             : "there is no job '" + job + "'");
    }
    return HttpClient(job_socket(job));
}

void print_for_people(const json& state) {
    const json& disk = state.at("disks").at(0);
    const auto bytes = [&](const char* field) { return format_size(disk.at(field).get<double>()); };
    std::cout << state.at("job").get<std::string>() << ": " << state.at("phase").get<std::string>()
              << ", " << bytes("moved_bytes") << " of " << bytes("total_bytes") << " moved, "
              << bytes("dirty_bytes") << " dirty, " << disk.at("passes") << " passes\n"
              << "  " << disk.at("source").get<std::string>() << " -> "
              << disk.at("target").get<std::string>() << '\n';
    if (state.at("paused").is_string()) {
        std::cout << "  paused"
                  << (state.at("paused") == "window"
                          ? ", outside of its daily window " + state.value("window", "")
                          : ", 'resume' lets it go on")
                  << '\n';
    }
    if (state.at("throttle").is_object()) {
        std::cout << "  writes at the source are delayed by "
                  << state.at("throttle").value("delay_us", 0) << " us each\n";
    }
    if (state.at("downtime_ms").is_number()) {
        std::cout << "  downtime " << state.at("downtime_ms").get<double>() << " ms\n";
    }
    if (state.at("error").is_string()) {
        std::cout << "  " << state.at("error").get<std::string>() << '\n';
    }
}

}  // namespace

int show_status(const std::string& job, bool as_json) {
    std::set<std::string> names = {job};
    if (job.empty()) {
        names = names_in(jobs_state_directory(), ".json");
        names.merge(names_in(jobs_runtime_directory(), ".sock"));
    }
    json all = json::array();
    for (const std::string& name : names) {
        const std::optional<json> state = find(name);
        if (state) {
            all.push_back(*state);
        } else if (!job.empty()) {
            throw JobError("there is no job '" + job + "'");
        }
    }
    if (as_json) {
        std::cout << (job.empty() ? all : all.at(0)).dump(2) << '\n';
        return 0;
    }
    for (const json& state : all) {
        print_for_people(state);
    }
    return 0;
}

int tell_job(const JobCommand& command) {
    struct Telling {
        const char* action;
        std::chrono::milliseconds limit;
        const char* line;  // what is said when the answer says nothing
    };
    const auto telling = [&]() -> Telling {
        switch (command.kind) {
            case JobCommand::Kind::cutover:
                return {"cutover", kCutoverLimit, ""};
            case JobCommand::Kind::pause:
                return {"pause", kAnswerLimit, "is paused; its source is still being tracked"};
            case JobCommand::Kind::resume:
                return {"resume", kAnswerLimit, "goes on"};
            case JobCommand::Kind::cancel:
                break;
        }
        return {"cancel", kAnswerLimit, "is being cancelled; its source stays in service"};
    }();
    HttpClient client = client_of(command.job);
    const HttpResponse response = client.request("POST", std::string("/v1/job/") + telling.action,
                                                 json::object(), telling.limit);
    if (!response.ok()) {
        throw JobError(response.error());
    }
    std::cout << response.body.value("result", "job '" + command.job + "' " + telling.line) << '\n';
    return 0;
}

int set_limits(const SetCommand& command) {
    HttpClient client = client_of(command.job);
    const HttpResponse response =
        client.request("PATCH", "/v1/job", command.limits.to_json(), kAnswerLimit);
    if (!response.ok()) {
        throw JobError(response.error());
    }
    return 0;
}

}  // namespace nbdm
