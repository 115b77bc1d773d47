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
    JobStatus status_{"vm1", {{"source", "target"}, {"other", "its target"}}, fd_.get()};
    DiskStatus& disk_ = status_.disk(0);
};

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
    disk_.add_to_do(1'000'000);
    (void)status_.snapshot();
    disk_.counters.moved_bytes = 1000;
    EXPECT_TRUE(status_.snapshot().eta_s.has_value());
    disk_.set_dirty_rate(1e18);
    status_.disk(1).set_dirty_rate(0);
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

TEST_F(JobStatusTest, DisksAreShownOneByOneAndSummed) {
    disk_.set_connections(3);
    status_.disk(1).set_connections(1);
    disk_.add_to_do(100);
    status_.disk(1).add_to_do(50);
    status_.disk(1).counters.moved_bytes = 20;
    const JobSnapshot now = status_.snapshot();
    const DiskSnapshot sum = sum_of_disks(now);
    EXPECT_EQ(sum.total_bytes, 150U);
    EXPECT_EQ(sum.moved_bytes, 20U);
    const nlohmann::json json = to_json(now);
    EXPECT_EQ(json.at("connections"), 4);
    EXPECT_EQ(json.at("disks").at(0).at("moved_bytes"), 0);
    EXPECT_EQ(json.at("disks").at(1).at("moved_bytes"), 20);
    EXPECT_EQ(json.at("disks").at(1).at("target"), "its target");
}

TEST_F(JobStatusTest, ARateOfAllIsKnownOnceThatOfEachIs) {
    disk_.set_dirty_rate(10);
    EXPECT_EQ(sum_of_disks(status_.snapshot()).dirty_rate, std::nullopt);
    status_.disk(1).set_dirty_rate(5);
    EXPECT_EQ(sum_of_disks(status_.snapshot()).dirty_rate, 15);
}

}  // namespace
}  // namespace nbdm
