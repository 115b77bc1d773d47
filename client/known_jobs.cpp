// SPDX-License-Identifier: Apache-2.0
#include "client/known_jobs.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <vector>

#include "client/cancellation.h"
#include "client/job_record.h"
#include "client/job_status.h"
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

// What the server of its source says of a disk.
enum class AtSource {
    stays,    // the job's tracker stands, which outlives no hand-over
    moved,    // by that job
    serves,   // something, for writing
    unknown,  // no answer, or another one
};

AtSource ask_source(const Location& source, const std::string& job,
                    const std::optional<RecordedJob>& record) {
    const Cancellation never;
    const SourceServer::ExportStatus status =
        SourceServer(source, never).status(kSourceAnswerLimit);
    if (status.state == "retired") {
        return status.moved_by == job ? AtSource::moved : AtSource::unknown;
    }
    // One that is held may be about to retire.
    if (status.state != "serving" || status.read_only) {
        return AtSource::unknown;
    }
    const bool stays =
        record && std::ranges::any_of(status.trackers, [&](const auto& stands) {
            return std::ranges::any_of(record->disks, [&](const auto& disk) {
                return disk.source == source.text && disk.tracker.incarnation == stands.incarnation;
            });
        });
    return stays ? AtSource::stays : AtSource::serves;
}

std::vector<AtSource> ask_sources(const json& state, SilentServers& silent) {
    const std::string job = state.value("job", "");
    std::optional<RecordedJob> record;
    try {
        record = JobRecord(job).read();
    } catch (const std::exception&) {  // damaged: nobody can tell a tracker by it
    }
    std::vector<AtSource> all;
    for (const json& disk : state.value("disks", json::array())) {
        const Location source = Location::parse(disk.value("source", ""));
        AtSource& one = all.emplace_back(AtSource::unknown);
        if (source.kind != Location::Kind::server_export ||
            silent.contains(source.control_socket)) {
            continue;
        }
        try {
            one = ask_source(source, job, record);
        } catch (const NoAnswer&) {
            silent.insert(source.control_socket);
        } catch (const JobError&) {  // it does not serve the disk any more
        }
    }
    return all;
}

// What a job's last state cannot know: what became of a hand-over of which it had no answer, and
// that somebody has taken a disk back since.
std::string say_whose_it_is(json& state, SilentServers& silent) {
    const json owner = state.value("owner", json());
    const bool failed = phase_named(state.value("phase", "")) == Phase::failed;
    const bool in_doubt = failed && owner == to_string(Owner::unknown);
    const bool may_have_come_back =
        owner == to_string(Owner::target) || owner == to_string(Owner::nobody);
    if (!in_doubt && !may_have_come_back) {
        return "";
    }
    std::vector<AtSource> all;
    try {
        all = ask_sources(state, silent);
    } catch (const std::exception&) {  // a name that another version has written
    }
    const auto is = [](AtSource one) { return [one](AtSource each) { return each == one; }; };
    if (may_have_come_back) {
        if (std::ranges::none_of(all, is(AtSource::serves))) {
            return "";
        }
        state["owner"] = to_string(Owner::unknown);
        return "the source's server serves the disk for writing since: it was taken back, or is "
               "another one";
    }
    if (!all.empty() && std::ranges::all_of(all, is(AtSource::stays))) {
        state["owner"] = to_string(Owner::source);
        return "the source is in service";
    }
    if (!all.empty() && std::ranges::all_of(all, is(AtSource::moved))) {
        return "the source has handed over, and the target may not have been told";
    }
    return std::ranges::any_of(all, is(AtSource::serves))
               ? "the source's server serves a disk of that name for writing, and knows whether it "
                 "is "
                 "this one"
               : "whether the disk has moved, the source's server knows";
}

// Of a job whose process died in `phase`.
void say_that_it_died(json& state, const std::string& phase, SilentServers& silent) {
    state["phase"] = to_string(Phase::failed);
    std::string error = "the mirror process ended while " + phase + "; ";
    if (phase_named(phase) == Phase::cutting_over) {
        state["owner"] = to_string(Owner::unknown);
        error += say_whose_it_is(state, silent);
    } else {
        error += "the source was in service";
    }
    const auto job = state.value("job", "");
    if (read_file(job_record_path(job))) {
        error += "; 'nbd-mirror mirror --resume --job " + job + "' goes on with what is left";
    }
    state["error"] = error;
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
    SilentServers silent;
    return ended_job_state(job, silent);
}

std::optional<json> ended_job_state(const std::string& job, SilentServers& silent) {
    std::optional<json> read = written_job_state(job);
    if (!read) {
        return std::nullopt;
    }
    const std::string phase = read->value("phase", "");
    if (const auto known = phase_named(phase); !known || !is_over(*known)) {
        say_that_it_died(*read, phase, silent);
    } else if (const std::string more = say_whose_it_is(*read, silent); !more.empty()) {
        const json error = read->value("error", json());
        (*read)["error"] = error.is_string() ? error.get<std::string>() + "; " + more : more;
    }
    return read;
}

std::optional<json> job_state(const std::string& job, SilentServers& silent) {
    if (!job_runs(job)) {
        return ended_job_state(job, silent);
    }
    try {
        return HttpClient(job_socket(job)).request("GET", "/v1/job", nullptr, kJobAnswerLimit).body;
    } catch (const HttpError& error) {
        // It may have ended between the two looks; or it was stopped, or hangs.
        if (!job_runs(job)) {
            return ended_job_state(job, silent);
        }
        std::optional<json> state = written_job_state(job);
        if (state) {
            (*state)["error"] = error.what();
        }
        return state;
    }
}

}  // namespace nbdm
