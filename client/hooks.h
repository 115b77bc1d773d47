// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/cancellation.h"
#include "client/hook_steps.h"
#include "client/job_status.h"

namespace nbdm {

// The hooks have not let a step begin; the sentence says which one, and why.
class HookRefused : public JobError {
  public:
    using JobError::JobError;
};

// Which of a directory's files are called, as run-parts chooses: executable files whose names have
// nothing but letters, digits, '_' and '-', in the order of their bytes.
struct HookFiles {
    std::vector<std::string> names;
    std::vector<std::string> ignored;  // and why, a sentence each
};
// Throws std::system_error that names the directory.
[[nodiscard]] HookFiles find_hooks(const std::string& directory);

// An operator's programs, told of a mirror's steps one after the other by a thread of its own: but
// for a step that they have to let begin, nobody waits for them, and whatever they do changes
// nothing.
//
// Threads: the job's.
class Hooks {
  public:
    struct Options {
        std::optional<std::string> directory;  // looked into at each call; nothing: no hooks
        std::chrono::milliseconds timeout{30'000};
    };
    // Throws std::system_error when the directory cannot be looked into. `status` and
    // `cancellation` outlive it.
    Hooks(Options options, JobStatus& status, const Cancellation& cancellation);
    Hooks(const Hooks&) = delete;
    Hooks& operator=(const Hooks&) = delete;
    ~Hooks();  // as finish()

    // The job is in this phase now, which may be known.
    void follow(Phase phase);
    // Returns when the hooks have let the step begin; until then `meanwhile` is called again and
    // again. Throws HookRefused, Cancelled, and what `meanwhile` throws: the next follow() tells
    // the hooks that it came to nothing.
    void begin(HookStep step, const std::function<void()>& meanwhile);
    // Returns when all calls were made.
    void finish();

  private:
    struct Waiting {
        HookCall call;
        std::string input;
        std::uint64_t ticket = 0;  // of one that somebody waits for; else 0
    };
    void add(std::vector<HookCall> calls, std::uint64_t ticket_of_last);
    void add_locked(Waiting waiting);
    void wait_for_answer(std::uint64_t ticket, const std::function<void()>& meanwhile);
    void withdraw(std::uint64_t ticket);
    void serve(const std::stop_token& stop);
    // Returns why the step is refused; empty when it is not.
    [[nodiscard]] std::string make(const Waiting& waiting) const;

    const Options options_;
    JobStatus& status_;
    const Cancellation& cancellation_;
    const std::string job_;
    HookSteps steps_;
    std::uint64_t last_ticket_ = 0;

    std::mutex mutex_;  // guards all below
    std::condition_variable_any changed_;
    std::deque<Waiting> waiting_;
    bool calling_ = false;
    bool left_out_ = false;
    std::uint64_t answered_ticket_ = 0;  // the last one
    std::string refusal_;                // the answer

    std::jthread thread_;  // last: joined first
};

}  // namespace nbdm
