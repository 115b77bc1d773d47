// SPDX-License-Identifier: Apache-2.0
#include "client/job_status.h"

#include <sys/eventfd.h>

#include <gtest/gtest.h>

#include "iothread/unique_fd.h"

namespace nbdm {
namespace {

class JobStatusTest : public testing::Test {
  protected:
    const UniqueFd fd_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    JobStatus status_{"vm1", "source", "target", fd_.get()};
};

TEST_F(JobStatusTest, MovedNeverPassesTheTotalAndNeverFalls) {
    status_.add_to_do(100);
    status_.counters.moved_bytes = 150;  // a block was copied twice
    EXPECT_EQ(status_.snapshot().moved_bytes, 100U);
    status_.add_to_do(20);
    EXPECT_EQ(status_.snapshot().moved_bytes, 120U);
    status_.counters.moved_bytes = 90;
    EXPECT_EQ(status_.snapshot().moved_bytes, 120U);
    EXPECT_EQ(status_.snapshot().total_bytes, 120U);
}

TEST_F(JobStatusTest, WhatIsNotKnownIsNull) {
    const nlohmann::json json = to_json(status_.snapshot());
    for (const char* field : {"eta_s", "downtime_ms", "expected_downtime_ms", "error", "throttle",
                              "paused", "bwlimit_bytes_per_s"}) {
        EXPECT_TRUE(json.at(field).is_null()) << field;
    }
    EXPECT_TRUE(json.at("disks").at(0).at("copy_rate_bytes_per_s").is_null());
    EXPECT_EQ(json.at("phase"), "preparing");
}

TEST_F(JobStatusTest, NoEndIsPromisedWhileWritersAreFasterThanTheCopy) {
    status_.set_phase(Phase::copying);
    status_.add_to_do(1'000'000);
    (void)status_.snapshot();
    status_.counters.moved_bytes = 1000;
    EXPECT_TRUE(status_.snapshot().eta_s.has_value());
    status_.set_dirty_rate(1e18);
    EXPECT_FALSE(status_.snapshot().eta_s.has_value());
}

TEST_F(JobStatusTest, ADowntimeIsExpectedInWholeMillisecondsUntilTheJobIsOver) {
    status_.set_expected_downtime(0.2);
    EXPECT_EQ(to_json(status_.snapshot()).at("expected_downtime_ms").dump(), "1");
    status_.set_phase(Phase::cancelled);
    EXPECT_TRUE(to_json(status_.snapshot()).at("expected_downtime_ms").is_null());
}

TEST_F(JobStatusTest, EveryPhaseIsSeenOnceAndInOrder) {
    status_.set_phase(Phase::copying);
    status_.set_phase(Phase::copying);
    status_.set_phase(Phase::done);
    const std::vector<JobSnapshot> changes = status_.take_phase_changes();
    ASSERT_EQ(changes.size(), 2U);
    EXPECT_EQ(changes[0].phase, Phase::copying);
    EXPECT_EQ(changes[1].phase, Phase::done);
    EXPECT_TRUE(status_.take_phase_changes().empty());
}

TEST_F(JobStatusTest, AnAttemptThatWasGivenUpIsNoErrorOfAJobThatIsDone) {
    status_.set_error("not cut over: too slow");
    status_.set_phase(Phase::catching_up);
    EXPECT_EQ(to_json(status_.snapshot()).at("error"), "not cut over: too slow");
    status_.set_phase(Phase::done);
    EXPECT_TRUE(to_json(status_.snapshot()).at("error").is_null());
}

}  // namespace
}  // namespace nbdm
