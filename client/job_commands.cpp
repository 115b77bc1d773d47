// SPDX-License-Identifier: Apache-2.0
#include "client/job_commands.h"

#include <chrono>
#include <cmath>
#include <iostream>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

#include "client/cancellation.h"
#include "client/job_status.h"
#include "client/known_jobs.h"
#include "control/http_client.h"
#include "control/runtime_paths.h"
#include "control/size.h"

namespace nbdm {

using nlohmann::json;

namespace {

// A cutover waits until the job is ready, which may take as long as the copy does.
constexpr std::chrono::hours kCutoverLimit{24 * 7};

std::string text_of(const json& state, const char* field) {
    return state.contains(field) && state.at(field).is_string() ? state.at(field).get<std::string>()
                                                                : "";
}

HttpClient client_of(const std::string& job) {
    if (!job_runs(job)) {
        const auto state = ended_job_state(job);
        if (!state) {
            throw JobError("there is no job '" + job + "'");
        }
        const std::string error = text_of(*state, "error");
        throw JobError("job '" + job + "' has ended: " + text_of(*state, "phase") +
                       (error.empty() ? "" : ": " + error));
    }
    return HttpClient(job_socket(job));
}

bool is_under_way(const json& state) {
    const auto phase = phase_named(text_of(state, "phase"));
    return phase == Phase::catching_up || phase == Phase::ready;
}

// A cutover is answered when it is done or given up: why it is not yet, whoever waits should know.
void say_what_a_cutover_waits_for(HttpClient& client, const std::string& job) {
    std::optional<Phase> phase;
    try {
        const json state = client.request("GET", "/v1/job", nullptr, kJobAnswerLimit).body;
        phase = phase_named(text_of(state, "phase"));
    } catch (const HttpError&) {  // it is asked for all the same
    }
    if (phase && *phase < Phase::ready) {
        std::cerr << "job '" << job << "' is " << to_string(*phase)
                  << ": it is cut over when it is ready; Ctrl-C takes that back\n";
    }
}

void print_for_people(const json& state) {
    std::cout << state.at("job").get<std::string>() << ": " << state.at("phase").get<std::string>()
              << '\n';
    for (const json& disk : state.at("disks")) {
        const auto bytes = [&](const char* field) {
            return format_size(disk.at(field).get<double>());
        };
        std::cout << "  " << disk.at("source").get<std::string>() << " -> "
                  << disk.at("target").get<std::string>() << ": " << bytes("moved_bytes") << " of "
                  << bytes("total_bytes") << " moved, " << bytes("dirty_bytes") << " dirty, "
                  << disk.at("passes") << (disk.at("passes") == 1 ? " pass\n" : " passes\n");
    }
    const json expected = state.value("expected_downtime_ms", json());
    const json allowed = state.value("max_downtime_ms", json());
    if (is_under_way(state) && expected.is_number() && allowed.is_number()) {
        std::cout << "  a cutover now: " << expected << " ms of downtime are expected, " << allowed
                  << " allowed"
                  << (expected > allowed ? "; it is not begun before less is left" : "") << '\n';
    }
    if (state.at("paused").is_string()) {
        std::cout << "  paused"
                  << (state.at("paused") == "window"
                          ? ", outside of its daily window " + text_of(state, "window")
                          : ", 'resume' lets it go on")
                  << '\n';
    }
    if (state.value("cutover_asked", false)) {
        std::cout << "  a cutover is asked for, and comes when the job is ready and goes on\n";
    }
    if (state.at("throttle").is_object()) {
        constexpr double kUsPerMs = 1000;
        std::cout << "  writes at the source are delayed by "
                  << state.at("throttle").value("delay_us", 0) / kUsPerMs << " ms each\n";
    }
    const std::string owner = text_of(state, "owner");
    if (owner == "nobody") {
        std::cout << "  guests may write nowhere until the target was told: 'mirror --resume'\n";
    } else if (owner == "unknown") {
        std::cout << "  where guests may write, the source's server knows\n";
    } else if (!owner.empty()) {
        std::cout << "  guests may write at the " << owner << '\n';
    }
    if (state.at("downtime_ms").is_number()) {
        std::cout << "  downtime " << std::ceil(state.at("downtime_ms").get<double>()) << " ms\n";
    }
    if (const std::string error = text_of(state, "error"); !error.empty()) {
        std::cout << "  " << error << '\n';
    }
}

}  // namespace

int show_status(const std::string& job, bool as_json) {
    std::set<std::string> names = {job};
    if (job.empty()) {
        names = known_jobs();
    }
    json all = json::array();
    SilentServers silent;
    for (const std::string& name : names) {
        const std::optional<json> state = job_state(name, silent);
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
                return {"pause", kJobAnswerLimit, "is paused; its source is still being tracked"};
            case JobCommand::Kind::resume:
                return {"resume", kJobAnswerLimit, "goes on"};
            case JobCommand::Kind::cancel:
                break;
        }
        return {"cancel", kJobAnswerLimit, "is being cancelled; its source stays in service"};
    }();
    HttpClient client = client_of(command.job);
    if (command.kind == JobCommand::Kind::cutover) {
        say_what_a_cutover_waits_for(client, command.job);
    }
    const HttpResponse response = [&] {
        try {
            return client.request("POST", std::string("/v1/job/") + telling.action, json::object(),
                                  telling.limit);
        } catch (const HttpError& error) {
            if (command.kind != JobCommand::Kind::cutover || job_runs(command.job)) {
                throw;
            }
            throw JobError("the mirror has ended meanwhile: 'nbd-mirror status " + command.job +
                           "' says where guests may write");
        }
    }();
    if (!response.ok()) {
        throw JobError(response.error());
    }
    std::string line = telling.line;
    if (command.kind == JobCommand::Kind::pause && response.body.value("cutover_asked", false)) {
        line += "; the cutover that is asked for comes when it goes on and is ready";
    }
    if (command.kind == JobCommand::Kind::cancel &&
        phase_named(text_of(response.body, "phase")) == Phase::cutting_over) {
        line =
            "is cutting over, and ends as soon as it may: its status says where guests may write";
    }
    if (command.kind == JobCommand::Kind::resume &&
        response.body.value("paused", json()) == "window") {
        line = "waits for its daily window " + text_of(response.body, "window");
    }
    std::cout << response.body.value("result", "job '" + command.job + "' " + line) << '\n';
    return 0;
}

int set_limits(const SetCommand& command) {
    HttpClient client = client_of(command.job);
    const HttpResponse response =
        client.request("PATCH", "/v1/job", command.limits.to_json(), kJobAnswerLimit);
    if (!response.ok()) {
        throw JobError(response.error());
    }
    return 0;
}

}  // namespace nbdm
