// SPDX-License-Identifier: Apache-2.0
#include "client/hook_steps.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using Texts = std::vector<std::string>;

Texts texts(const std::vector<HookCall>& calls) {
    Texts all;
    for (const HookCall& call : calls) {
        all.push_back(call.text());
    }
    return all;
}

// What hooks are told from the beginning to the cutover.
HookSteps ready() {
    HookSteps steps;
    (void)steps.begin(HookStep::prepare);
    for (const Phase phase : {Phase::copying, Phase::catching_up, Phase::ready}) {
        (void)steps.follow(phase);
    }
    return steps;
}

TEST(HookSteps, EachStepEndsBeforeTheNextOneBegins) {
    HookSteps steps;
    EXPECT_EQ(texts(steps.begin(HookStep::prepare)), Texts({"prepare begin -"}));
    EXPECT_EQ(texts(steps.follow(Phase::copying)), Texts({"prepare end ok", "copy begin -"}));
    EXPECT_EQ(texts(steps.follow(Phase::catching_up)), Texts({"copy end ok", "catch_up begin -"}));
    EXPECT_EQ(texts(steps.follow(Phase::ready)), Texts({"catch_up end ok", "ready begin -"}));
    EXPECT_EQ(texts(steps.begin(HookStep::cutover)), Texts({"ready end ok", "cutover begin -"}));
    EXPECT_EQ(texts(steps.follow(Phase::cutting_over)), Texts());
    EXPECT_EQ(texts(steps.follow(Phase::done)), Texts({"cutover end ok", "done end ok"}));
}

TEST(HookSteps, WhatIsKnownIsNotToldAgain) {
    HookSteps steps = ready();
    EXPECT_EQ(texts(steps.follow(Phase::ready)), Texts());
    (void)steps.follow(Phase::done);
    EXPECT_EQ(texts(steps.follow(Phase::done)), Texts());
    // Whatever goes wrong behind the hand-over.
    EXPECT_EQ(texts(steps.follow(Phase::failed)), Texts());
}

TEST(HookSteps, FallingBackIsAFailureOfTheStep) {
    HookSteps steps = ready();
    EXPECT_EQ(texts(steps.follow(Phase::catching_up)),
              Texts({"ready end failed", "catch_up begin -"}));
    EXPECT_EQ(texts(steps.follow(Phase::copying)), Texts({"catch_up end failed", "copy begin -"}));
}

TEST(HookSteps, ACutoverThatIsGivenUpEndsWhereverTheJobGoesOn) {
    for (const auto& [phase, begun] : {std::pair(Phase::ready, "ready begin -"),
                                       std::pair(Phase::catching_up, "catch_up begin -")}) {
        HookSteps steps = ready();
        (void)steps.begin(HookStep::cutover);
        EXPECT_EQ(texts(steps.follow(phase)), Texts({"cutover end failed", begun}));
    }
}

TEST(HookSteps, TheEndIsToldWithItsNameAndEndsTheStep) {
    HookSteps failing = ready();
    EXPECT_EQ(texts(failing.follow(Phase::failed)),
              Texts({"ready end failed", "failed end failed"}));
    HookSteps cancelled;
    (void)cancelled.begin(HookStep::prepare);
    EXPECT_EQ(texts(cancelled.follow(Phase::cancelled)),
              Texts({"prepare end cancelled", "cancelled end cancelled"}));
    // Resumed, and the disk had moved.
    HookSteps moved;
    (void)moved.begin(HookStep::prepare);
    EXPECT_EQ(texts(moved.follow(Phase::done)), Texts({"prepare end ok", "done end ok"}));
}

TEST(HookSteps, ABeginThatNobodyWasToldOfHasNoEnd) {
    HookSteps steps = ready();
    (void)steps.begin(HookStep::cutover);
    steps.forget();
    EXPECT_EQ(texts(steps.follow(Phase::cancelled)), Texts({"cancelled end cancelled"}));
}

}  // namespace
}  // namespace nbdm
