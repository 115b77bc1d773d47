// SPDX-License-Identifier: Apache-2.0
#include "client/session.h"

#include <gtest/gtest.h>

#include "server/fence.h"

namespace nbdm {
namespace {

SessionName parsed(const std::string& context, std::string_view prefix) {
    return SessionName::parse(context, prefix).value();
}

TEST(Session, MirrorsOfJobsOfOneNameHaveTheirOwn) {
    EXPECT_NE(Session("vm1").id(), Session("vm1").id());
    EXPECT_TRUE(Session("vm1").id().starts_with("vm1-"));
}

TEST(Session, AServerUnderstandsItWhateverTheJobsNameIs) {
    Session session(std::string(200, 'x'));
    EXPECT_EQ(parsed(session.next_context(), SessionName::kSession).id, session.id());
    const SessionName commit = parsed(session.next_commit_context(), SessionName::kCommit);
    EXPECT_EQ(commit.id, session.id());
    EXPECT_EQ(commit.epoch, session.epoch());
    EXPECT_EQ(parsed(session.past_commit_context(), SessionName::kCommit).epoch, 0U);
}

TEST(Session, EpochsGrowAlthoughTheClockWasSetBack) {
    const std::uint64_t far_ahead = UINT64_MAX / 2;
    Session session("vm1-1", far_ahead);
    const std::uint64_t first = parsed(session.next_context(), SessionName::kSession).epoch;
    EXPECT_GT(first, far_ahead);
    EXPECT_EQ(parsed(session.next_commit_context(), SessionName::kCommit).epoch, first + 1);
}

TEST(Session, AProcessIsLaterThanTheOneBeforeWhateverThatHasUsedSinceItWasRecorded) {
    Session before("vm1-1", UINT64_MAX / 2);
    [[maybe_unused]] const std::string recorded = before.next_context();
    Session after("vm1-1", before.epoch());
    for (int connection = 0; connection < 1000; ++connection) {
        [[maybe_unused]] const std::string used = before.next_context();
    }
    EXPECT_GT(parsed(after.next_context(), SessionName::kSession).epoch, before.epoch());
}

}  // namespace
}  // namespace nbdm
