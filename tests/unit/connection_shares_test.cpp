// SPDX-License-Identifier: Apache-2.0
#include "client/connection_shares.h"

#include <optional>

#include <sys/eventfd.h>

#include <gtest/gtest.h>

#include "iothread/unique_fd.h"

namespace nbdm {
namespace {

class ConnectionSharesTest : public testing::Test {
  protected:
    void SetUp() override { set_connections(8); }
    void set_connections(unsigned connections) {
        LimitChanges changes;
        changes.connections = connections;
        limits_.apply(changes);
    }

    const UniqueFd fd_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    JobStatus status_{"vm1", {{"source", "target"}}, fd_.get()};
    JobLimits limits_{status_};
    ConnectionShares shares_{3, limits_};
};

TEST_F(ConnectionSharesTest, AllHaveTheSameButForTheRest) {
    EXPECT_EQ(shares_.among_all(0), 3U);
    EXPECT_EQ(shares_.among_all(1), 3U);
    EXPECT_EQ(shares_.among_all(2), 2U);
}

TEST_F(ConnectionSharesTest, WhatADiskDoesNotUseTheOthersHave) {
    const ConnectionShares::Copying third(shares_, 2);
    EXPECT_EQ(shares_.among_copying(2), 8U);
    std::optional<ConnectionShares::Copying> first(std::in_place, shares_, 0);
    EXPECT_EQ(shares_.among_copying(0), 4U);
    EXPECT_EQ(shares_.among_copying(2), 4U);
    first.reset();
    EXPECT_EQ(shares_.among_copying(2), 8U);
    EXPECT_EQ(shares_.among_all(2), 2U);
}

TEST_F(ConnectionSharesTest, EachHasAtLeastOne) {
    set_connections(2);
    EXPECT_EQ(shares_.among_all(0), 1U);
    EXPECT_EQ(shares_.among_all(2), 1U);
}

TEST_F(ConnectionSharesTest, AJobOfOneDiskHasAll) {
    ConnectionShares alone(1, limits_);
    const ConnectionShares::Copying copying(alone, 0);
    EXPECT_EQ(alone.among_all(0), 8U);
    EXPECT_EQ(alone.among_copying(0), 8U);
}

}  // namespace
}  // namespace nbdm
