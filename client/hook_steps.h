// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "client/job_status.h"

namespace nbdm {

// What a mirror does, in the order in which it is done: the phases as hooks are told of them, but
// that `cutover` begins before the writers are held.
enum class HookStep { prepare, copy, catch_up, ready, cutover };
[[nodiscard]] const char* to_string(HookStep step) noexcept;

// What hooks are told: their arguments behind the job's name.
struct HookCall {
    std::string step;  // of a job that is over "done", "failed" or "cancelled"
    bool begins = false;
    std::string status;  // "-" of what begins; else "ok", "failed" or "cancelled"

    // "copy end ok"
    [[nodiscard]] std::string text() const;
};

// Which calls a mirror's way through its phases makes: each step that began ends before the next
// one begins, and the job's end is told last.
//
// Threads: one at a time.
class HookSteps {
  public:
    // What is to be called when the job is in `phase`; nothing when that is known already. A step
    // ends "ok" when the job goes on to a later one, "failed" when it falls back.
    [[nodiscard]] std::vector<HookCall> follow(Phase phase);
    // What is to be called when `step` is about to begin; that itself comes last.
    [[nodiscard]] std::vector<HookCall> begin(HookStep step);
    // The begin of the step under way was told to nobody, nor will its end be.
    void forget() noexcept { step_.reset(); }

  private:
    void end(const char* status, std::vector<HookCall>& calls);

    std::optional<HookStep> step_;
    bool over_ = false;
};

}  // namespace nbdm
