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
    EXPECT_EQ(parsed(session.next_context(), SessionName::kSession).epoch, far_ahead + 1);
    EXPECT_EQ(parsed(session.next_commit_context(), SessionName::kCommit).epoch, far_ahead + 2);
}

}  // namespace
}  // namespace nbdm
