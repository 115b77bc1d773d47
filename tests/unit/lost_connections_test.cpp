// SPDX-License-Identifier: Apache-2.0
#include "client/lost_connections.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using std::chrono::seconds;

class LostConnectionsTest : public testing::Test {
  protected:
    // Connected again, and lost after so long.
    void lose_after(seconds time, std::uint64_t durable_steps) {
        lost_.connected(now_);
        now_ += time;
        lost_.lost(durable_steps, now_);
    }
    [[nodiscard]] bool given_up(seconds later = seconds(0)) const {
        return lost_.given_up(now_ + later).has_value();
    }

    LostConnections lost_{seconds(30)};
    LostConnections::Clock::time_point now_{std::chrono::hours(1)};
};

TEST_F(LostConnectionsTest, OneThatDoesNotComeBackIsGivenUpAfterTheLimit) {
    lose_after(seconds(100), 0);
    EXPECT_FALSE(given_up(seconds(30)));
    EXPECT_TRUE(given_up(seconds(31)));
}

TEST_F(LostConnectionsTest, ThoseThatSoonGoAndMakeNothingDurableCountAsOne) {
    lose_after(seconds(1), 0);
    lose_after(seconds(20), 0);
    EXPECT_FALSE(given_up(seconds(10)));
    EXPECT_TRUE(given_up(seconds(11)));
}

TEST_F(LostConnectionsTest, WhatBecomesDurableIsAnotherBeginning) {
    for (std::uint64_t step = 1; step < 100; ++step) {
        lose_after(seconds(20), step);
        EXPECT_FALSE(given_up(seconds(30)));
    }
}

TEST_F(LostConnectionsTest, ManyThatLastAndMakeNothingDurableAreGivenUp) {
    for (int i = 0; i <= LostConnections::kMaxFruitless; ++i) {
        EXPECT_FALSE(given_up()) << i;
        lose_after(seconds(40), 0);
    }
    EXPECT_TRUE(given_up());
    EXPECT_NE(lost_.given_up(now_)->find("10 connections"), std::string::npos);
}

TEST_F(LostConnectionsTest, ARoundThatIsThroughEndsTheCount) {
    for (int i = 0; i < 3 * LostConnections::kMaxFruitless; ++i) {
        lose_after(seconds(40), 0);
        EXPECT_FALSE(given_up()) << i;
        lost_.round_ended();
    }
}

}  // namespace
}  // namespace nbdm
