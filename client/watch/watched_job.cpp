// SPDX-License-Identifier: Apache-2.0
#include "client/watch/watched_job.h"

#include <optional>
#include <utility>

#include "client/known_jobs.h"
#include "client/watch/styled_line.h"
#include "control/runtime_paths.h"

namespace nbdm {

using nlohmann::json;

namespace {

// A job that takes longer is said not to answer.
constexpr std::chrono::milliseconds kAnswerLimit{1000};
constexpr std::chrono::seconds kSilence{2};
constexpr std::chrono::seconds kRateInterval{1};
// More than the widest terminal shows.
constexpr std::size_t kMostRates = 1000;

}  // namespace

WatchedJob::WatchedJob(const std::string& job) : job_(job), client_(job_socket(job)) {
    view_.job = printable(job);
}

void WatchedJob::look(Clock::time_point now, const std::function<bool()>& interrupted) {
    if (is_over()) {
        return;
    }
    try {
        HttpResponse status = client_.request("GET", "/v1/job", nullptr, kAnswerLimit, interrupted);
        const HttpResponse map =
            client_.request("GET", "/v1/job/map", nullptr, kAnswerLimit, interrupted);
        if (!status.ok()) {
            throw HttpError(status.error());
        }
        take(std::move(status.body));
        // A job of an older version has none.
        if (map.ok() && !is_over()) {
            add_map(view_, map.body);
        }
        answered_ = now;
        note_rates(now);
    } catch (const HttpError&) {
        if (interrupted && interrupted()) {
            return;
        }
        if (!job_runs(job_)) {
            take_end();
        } else if (now - answered_ >= kSilence) {
            note_silence(std::chrono::duration_cast<std::chrono::seconds>(now - answered_));
        }
    }
}

void WatchedJob::take(json state) {
    JobView view = view_of_job(state);
    if (nbdm::is_over(view.phase)) {
        keep_maps(view, view_);
    }
    view_ = std::move(view);
    state_ = std::move(state);
}

void WatchedJob::take_end() {
    std::optional<json> end = ended_job_state(job_);
    const json written = written_job_state(job_).value_or(json());
    if (!is_unknown() && !nbdm::is_over(view_of_job(written).phase)) {
        // It died, and what it said last is newer than what it has written.
        json last = state_;
        last["phase"] = to_string(Phase::failed);
        last["error"] = end ? end->at("error") : json("the mirror process ended");
        last["owner"] = end ? end->value("owner", json()) : json();
        last["eta_s"] = last["expected_downtime_ms"] = nullptr;
        end = std::move(last);
    }
    if (end) {
        take(*std::move(end));
    }
}

void WatchedJob::note_silence(std::chrono::seconds time) {
    if (is_unknown()) {
        take(written_job_state(job_).value_or(json{{"job", job_}}));
    }
    view_.silent = time;
    state_["error"] = "no answer from the job for " + std::to_string(time.count()) + " s";
}

void WatchedJob::note_rates(Clock::time_point now) {
    if (now - noted_ < kRateInterval) {
        return;
    }
    noted_ = now;
    history_.push_back(rates_of(view_));
    if (history_.size() > kMostRates) {
        history_.pop_front();
    }
}

}  // namespace nbdm
