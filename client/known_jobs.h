// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

namespace nbdm {

// The jobs of this host, as their sockets and files show them; states are as in `status --json`.
//
// Threads: one at a time. Fails: JobError with a sentence.

// How long a running job may take to answer.
constexpr std::chrono::milliseconds kJobAnswerLimit{5'000};

// Control sockets whose servers have not answered; they are not asked again.
using SilentServers = std::set<std::string>;

// Names, of running and ended jobs.
[[nodiscard]] std::set<std::string> known_jobs();
[[nodiscard]] bool job_runs(const std::string& job);
// The last state of a job that does not run; of one whose process died without saying so, with that
// said. Where guests may write to its disks by now, the servers of its sources are asked, if the
// job may not have known. Nothing when there is no such job.
[[nodiscard]] std::optional<nlohmann::json> ended_job_state(const std::string& job);
[[nodiscard]] std::optional<nlohmann::json> ended_job_state(const std::string& job,
                                                            SilentServers& silent);
// The last state that a job has written, which may be old. Nothing when there is none.
[[nodiscard]] std::optional<nlohmann::json> written_job_state(const std::string& job);
// The state of any job. Nothing when there is no such job.
[[nodiscard]] std::optional<nlohmann::json> job_state(const std::string& job,
                                                      SilentServers& silent);

}  // namespace nbdm
