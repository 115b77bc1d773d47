// SPDX-License-Identifier: Apache-2.0
#include "client/known_jobs.h"

#include <filesystem>

#include "client/cancellation.h"
#include "control/durable_file.h"
#include "control/http_client.h"
#include "control/runtime_paths.h"
#include "control/unix_socket.h"

namespace nbdm {

using nlohmann::json;

namespace {

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

}  // namespace

std::set<std::string> known_jobs() {
    std::set<std::string> names = names_in(jobs_state_directory(), ".json");
    names.merge(names_in(jobs_runtime_directory(), ".sock"));
    return names;
}

bool job_runs(const std::string& job) {
    return unix_socket_answers(job_socket(job));
}

std::optional<json> written_job_state(const std::string& job) {
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

std::optional<json> ended_job_state(const std::string& job) {
    std::optional<json> read = written_job_state(job);
    if (!read) {
        return std::nullopt;
    }
    json& state = *read;
    const std::string phase = state.value("phase", "");
    if (phase != "done" && phase != "failed" && phase != "cancelled") {
        state["phase"] = "failed";
        if (phase == "cutting_over") {
            state["owner"] = "unknown";
        }
        state["error"] =
            "the mirror process ended while " + phase +
            (phase == "cutting_over" ? "; whether the disk has moved, the source's server knows"
                                     : "; the source was in service") +
            (read_file(job_record_path(job))
                 ? "; 'nbd-mirror mirror --resume --job " + job + "' goes on with what is left"
                 : "");
    }
    return read;
}

std::optional<json> job_state(const std::string& job) {
    if (!job_runs(job)) {
        return ended_job_state(job);
    }
    try {
        return HttpClient(job_socket(job)).request("GET", "/v1/job", nullptr, kJobAnswerLimit).body;
    } catch (const HttpError& error) {
        // It may have ended between the two looks; or it was stopped, or hangs.
        if (!job_runs(job)) {
            return ended_job_state(job);
        }
        std::optional<json> state = written_job_state(job);
        if (state) {
            (*state)["error"] = error.what();
        }
        return state;
    }
}

}  // namespace nbdm
