// SPDX-License-Identifier: Apache-2.0
#include "client/known_jobs.h"

#include <filesystem>

#include "client/cancellation.h"
#include "client/location.h"
#include "client/source_server.h"
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

constexpr std::chrono::milliseconds kSourceAnswerLimit{1'000};

// What the servers of its sources say of a job's disks.
enum class SourcesSay {
    moved,   // by that job
    here,    // they serve them for writing
    nothing  // or not the same of all
};

SourcesSay ask_source(const std::string& source, const std::string& job) {
    try {
        const Location location = Location::parse(source);
        if (location.kind != Location::Kind::server_export) {
            return SourcesSay::nothing;
        }
        const Cancellation never;
        const SourceServer::ExportStatus status =
            SourceServer(location, never).status(kSourceAnswerLimit);
        if (status.state == "retired") {
            return status.moved_by == job ? SourcesSay::moved : SourcesSay::nothing;
        }
        // One that is held may be about to retire.
        return status.state == "serving" && !status.read_only ? SourcesSay::here
                                                              : SourcesSay::nothing;
    } catch (const std::exception&) {  // no answer, or a name that an older job had
        return SourcesSay::nothing;
    }
}

SourcesSay ask_sources(const json& state) {
    std::optional<SourcesSay> all;
    for (const json& disk : state.value("disks", json::array())) {
        const SourcesSay one = ask_source(disk.value("source", ""), state.value("job", ""));
        all = all.value_or(one) == one ? one : SourcesSay::nothing;
    }
    return all.value_or(SourcesSay::nothing);
}

// Of a job whose process died in `phase`.
void say_that_it_died(json& state, const std::string& phase) {
    const bool may_have_moved = phase == "cutting_over";
    const SourcesSay say = may_have_moved ? ask_sources(state) : SourcesSay::here;
    state["phase"] = "failed";
    if (may_have_moved) {
        state["owner"] = say == SourcesSay::here ? "source" : "unknown";
    }
    std::string error = "the mirror process ended while " + phase;
    switch (say) {
        case SourcesSay::moved:
            error += "; the source has handed over, and the target may not have been told";
            break;
        case SourcesSay::here:
            error += "; the source was in service";
            break;
        case SourcesSay::nothing:
            error += "; whether the disk has moved, the source's server knows";
            break;
    }
    const auto job = state.value("job", "");
    if (read_file(job_record_path(job))) {
        error += "; 'nbd-mirror mirror --resume --job " + job + "' goes on with what is left";
    }
    state["error"] = error;
}

// Who took a disk back at its source did not tell the job's last state.
void say_if_taken_back(json& state) {
    const json owner = state.value("owner", json());
    if (owner.is_string() && owner != "source" && ask_sources(state) == SourcesSay::here) {
        state["owner"] = "unknown";
        state["error"] =
            "the source's server serves the disk for writing since: it was taken back, "
            "or is another one";
    }
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
    const std::string phase = read->value("phase", "");
    if (phase != "done" && phase != "failed" && phase != "cancelled") {
        say_that_it_died(*read, phase);
    } else {
        say_if_taken_back(*read);
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
