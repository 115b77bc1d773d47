// SPDX-License-Identifier: Apache-2.0
#include "client/job_control.h"

#include <limits>
#include <stdexcept>
#include <unistd.h>
#include <utility>

#include "client/job_metrics.h"
#include "client/job_record.h"
#include "client/known_jobs.h"
#include "control/durable_file.h"
#include "control/http_routes.h"
#include "control/log.h"
#include "control/prometheus.h"
#include "control/runtime_paths.h"
#include "control/unix_socket.h"
#include "iothread/check.h"
#include "iothread/event_fd.h"

namespace nbdm {

namespace {

constexpr const char* kRuntimeHint = "NBD_MIRROR_RUNTIME_DIR names another place for job sockets";
constexpr const char* kStateHint =
    "NBD_MIRROR_STATE_DIR names another place for the states of jobs";

HttpServer listen_for(const std::string& job, event_base* base, HttpServer::Handler handler) {
    const bool runs = with_hint(kRuntimeHint, [&] {
        ensure_directory(jobs_runtime_directory(), 0755);
        return unix_socket_answers(job_socket(job));
    });
    if (runs) {
        throw JobError("job '" + job + "' runs already, 'nbd-mirror status " + job +
                       "' shows it; for another disk --job gives another name");
    }
    with_hint(kStateHint, [] { ensure_directory(jobs_state_directory(), 0700); });
    remove_leftovers(jobs_state_directory());
    return with_hint(kRuntimeHint,
                     [&] { return HttpServer(base, job_socket(job), std::move(handler)); });
}

// Of an earlier job of this name: where its disk is now, or how it goes on.
bool is_worth_keeping(const std::string& job) {
    try {
        const auto earlier = written_job_state(job);
        return earlier &&
               (phase_named(earlier->value("phase", "")) == Phase::done || JobRecord(job).read());
    } catch (const std::exception&) {
        return false;  // nobody can read it
    }
}

}  // namespace

JobControl::JobControl(JobRunner& runner, CutoverRequests& cutover_requests, const std::string& job,
                       int outcome_fd)
    : runner_(runner),
      cutover_requests_(cutover_requests),
      state_path_(job_state_path(job)),
      keeps_earlier_(is_worth_keeping(job)),
      outcome_fd_(outcome_fd),
      server_(listen_for(job, runner.base(),
                         [this](HttpRequest request) { handle(std::move(request)); })),
      outcome_event_(event_new(
          runner.base(), outcome_fd, EV_READ | EV_PERSIST,
          [](evutil_socket_t, short, void* self) {
              static_cast<JobControl*>(self)->answer_cutovers();
          },
          this)) {
    event_add(outcome_event_.get(), nullptr);
    runner_.on_phase_change([this](const JobSnapshot& snapshot) { save(snapshot); });
    save(runner_.status().snapshot());
}

JobControl::~JobControl() {
    runner_.on_phase_change({});
}

void JobControl::handle(HttpRequest request) {
    using Handler = void (JobControl::*)(HttpRequest);
    static constexpr HttpRoute<Handler> kRoutes[] = {
        {"GET", "/v1/job", &JobControl::show_status},
        {"GET", "/v1/job/map", &JobControl::show_map},
        {"PATCH", "/v1/job", &JobControl::set_limits},
        {"POST", "/v1/job/cutover", &JobControl::cut_over},
        {"POST", "/v1/job/pause", &JobControl::pause},
        {"POST", "/v1/job/resume", &JobControl::resume},
        {"POST", "/v1/job/cancel", &JobControl::cancel},
        {"GET", "/metrics", &JobControl::show_metrics},
    };
    if (const Handler handler = find_handler(kRoutes, request)) {
        (this->*handler)(std::move(request));
    }
}

void JobControl::show_status(HttpRequest request) {
    request.reply(200, status_of(runner_.status().snapshot()));
}

nlohmann::json JobControl::status_of(const JobSnapshot& snapshot) const {
    nlohmann::json status = to_json(snapshot);
    status["cutover_asked"] = cutover_requests_.pending();
    return status;
}

// A list of disks, as in the job's status.
void JobControl::show_map(HttpRequest request) {
    const JobSnapshot now = runner_.status().snapshot();
    nlohmann::json disks = nlohmann::json::array();
    for (std::size_t i = 0; i < now.disks.size(); ++i) {
        nlohmann::json disk = to_json(runner_.status().disk(i).map.look(BlockMap::Clock::now()));
        disk["source"] = now.disks[i].ends.source;
        disk["target"] = now.disks[i].ends.target;
        disks.push_back(disk);
    }
    request.reply(200, {{"job", now.job}, {"disks", disks}});
}

void JobControl::show_metrics(HttpRequest request) {
    request.reply_text(200, PrometheusText::kContentType, job_metrics(runner_.status().snapshot()));
}

void JobControl::pause(HttpRequest request) {
    runner_.limits().set_paused(true);
    answer_with_status(std::move(request));
}

void JobControl::resume(HttpRequest request) {
    runner_.limits().set_paused(false);
    answer_with_status(std::move(request));
}

void JobControl::cancel(HttpRequest request) {
    runner_.cancellation().request();
    request.reply(202, status_of(runner_.status().snapshot()));
}

void JobControl::answer_with_status(HttpRequest request) {
    const JobSnapshot now = runner_.status().snapshot();
    save(now);
    request.reply(200, status_of(now));
}

void JobControl::set_limits(HttpRequest request) {
    try {
        runner_.limits().apply(LimitChanges::from_json(request.body));
    } catch (const std::invalid_argument& error) {
        request.reply_error(400, error.what());
        return;
    }
    answer_with_status(std::move(request));
}

// Answered with the outcome. A request that nobody waits for any more is taken back: an operator
// who has interrupted the command must not be surprised by a cutover later.
void JobControl::cut_over(HttpRequest request) {
    switch (runner_.limits().paused()) {
        case Paused::by_operator:
            request.reply_error(409, "not cut over: the job is paused, 'resume' it first");
            return;
        case Paused::by_window:
            request.reply_error(409, "not cut over: the job is outside of its daily window " +
                                         runner_.status().snapshot().window +
                                         ", 'set --window off' lets it go on");
            return;
        case Paused::no:
            break;
    }
    const std::uint64_t ticket = cutover_requests_.add();
    cutovers_.push_back({std::move(request), ticket});
    cutovers_.back().request.on_client_left([this, ticket] {
        cutovers_.remove_if([&](const Waiting& each) { return each.ticket == ticket; });
        if (cutovers_.empty()) {
            cutover_requests_.withdraw();
        }
    });
}

void JobControl::answer_cutovers() {
    clear_event_fd(outcome_fd_);
    const std::optional<CutoverOutcome> outcome = cutover_requests_.outcome();
    if (!outcome) {
        return;
    }
    if (outcome->done) {
        save(runner_.status().snapshot());  // whoever is answered finds it recorded
    }
    answer_cutovers_up_to(*outcome, outcome->ticket);
}

void JobControl::answer_cutovers_up_to(const CutoverOutcome& outcome, std::uint64_t ticket) {
    while (!cutovers_.empty() && cutovers_.front().ticket <= ticket) {
        HttpRequest& request = cutovers_.front().request;
        if (outcome.done) {
            request.reply(200, {{"result", outcome.line}});
        } else {
            request.reply_error(409, outcome.line);
        }
        cutovers_.pop_front();
    }
}

void JobControl::finish() {
    answer_cutovers();
    // Who has asked since then learns the same.
    if (const std::optional<CutoverOutcome> outcome = cutover_requests_.outcome()) {
        answer_cutovers_up_to(*outcome, std::numeric_limits<std::uint64_t>::max());
    }
    save(runner_.status().snapshot());
    server_.flush();
}

void JobControl::save(const JobSnapshot& snapshot) {
    // A job that has not touched anything yet leaves what is known of the earlier one.
    const bool untouched = snapshot.phase == Phase::preparing || snapshot.phase == Phase::failed ||
                           snapshot.phase == Phase::cancelled;
    keeps_earlier_ = keeps_earlier_ && untouched;
    if (keeps_earlier_) {
        return;
    }
    try {
        write_file_durably(state_path_, to_json(snapshot).dump(2) + "\n");
    } catch (const std::system_error& error) {
        // It is a report; the job itself does not depend on it. None is better than an old one, by
        // which a disk that moves now would be in service at its source for ever.
        log_warning(error.what());
        ::unlink(state_path_.c_str());
    }
}

}  // namespace nbdm
