// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "client/cutover_requests.h"
#include "client/job_runner.h"
#include "control/event.h"
#include "control/http_server.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// A mirror job's control socket and its state file: the one owner of the job's name.
//
// Threads: the loop's. Fails: the constructor throws when another process runs a job of this name.
class JobControl {
  public:
    JobControl(JobRunner& runner, CutoverRequests& cutover_requests, const std::string& job,
               int outcome_fd);
    JobControl(const JobControl&) = delete;
    JobControl& operator=(const JobControl&) = delete;
    ~JobControl();

    // After the job has ended: the last answers, and the last state on disk.
    void finish();

  private:
    void handle(HttpRequest request);
    void show_status(HttpRequest request);
    void show_map(HttpRequest request);
    void show_metrics(HttpRequest request);
    void set_limits(HttpRequest request);
    void cut_over(HttpRequest request);
    void pause(HttpRequest request);
    void resume(HttpRequest request);
    void cancel(HttpRequest request);
    void answer_with_status(HttpRequest request);
    [[nodiscard]] nlohmann::json status_of(const JobSnapshot& snapshot) const;
    void answer_cutovers();
    void answer_cutovers_up_to(const CutoverOutcome& outcome, std::uint64_t ticket);
    void save(const JobSnapshot& snapshot);

    JobRunner& runner_;
    CutoverRequests& cutover_requests_;
    const std::string state_path_;
    bool keeps_earlier_;  // what an earlier job of this name has saved there
    const int outcome_fd_;
    struct Waiting {
        HttpRequest request;
        std::uint64_t ticket;
    };
    std::list<Waiting> cutovers_;  // waiting for their outcome
    HttpServer server_;
    EventPointer outcome_event_;
};

}  // namespace nbdm
