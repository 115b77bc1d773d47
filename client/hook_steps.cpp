// SPDX-License-Identifier: Apache-2.0
#include "client/hook_steps.h"

namespace nbdm {

namespace {

// Of a phase that is not the job's end.
HookStep step_of(Phase phase) noexcept {
    switch (phase) {
        case Phase::preparing:
            return HookStep::prepare;
        case Phase::copying:
            return HookStep::copy;
        case Phase::catching_up:
            return HookStep::catch_up;
        case Phase::ready:
            return HookStep::ready;
        default:
            return HookStep::cutover;
    }
}

}  // namespace

const char* to_string(HookStep step) noexcept {
    switch (step) {
        case HookStep::prepare:
            return "prepare";
        case HookStep::copy:
            return "copy";
        case HookStep::catch_up:
            return "catch_up";
        case HookStep::ready:
            return "ready";
        case HookStep::cutover:
            return "cutover";
    }
    return "";
}

std::string HookCall::text() const {
    return step + (begins ? " begin " : " end ") + status;
}

std::vector<HookCall> HookSteps::follow(Phase phase) {
    if (over_) {
        return {};
    }
    if (!is_over(phase)) {
        return step_ == step_of(phase) ? std::vector<HookCall>() : begin(step_of(phase));
    }
    over_ = true;
    const char* status = phase == Phase::done ? "ok" : to_string(phase);
    std::vector<HookCall> calls;
    end(status, calls);
    calls.push_back({.step = to_string(phase), .begins = false, .status = status});
    return calls;
}

std::vector<HookCall> HookSteps::begin(HookStep step) {
    std::vector<HookCall> calls;
    end(step_ < step ? "ok" : "failed", calls);
    calls.push_back({.step = to_string(step), .begins = true, .status = "-"});
    step_ = step;
    return calls;
}

void HookSteps::end(const char* status, std::vector<HookCall>& calls) {
    if (step_) {
        calls.push_back({.step = to_string(*step_), .begins = false, .status = status});
        step_.reset();
    }
}

}  // namespace nbdm
