// SPDX-License-Identifier: Apache-2.0
#include "server/patience.h"

#include <chrono>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using std::chrono::seconds;

constexpr seconds kTimeout{300};
const Patience::Clock::time_point kStart{std::chrono::hours(1)};

class PatienceTest : public testing::Test {
  protected:
    PatienceTest() { patience_.received(kStart); }
    Patience patience_{kTimeout};
};

TEST_F(PatienceTest, BetweenRequestsAClientMayBeSilentForEver) {
    patience_.look({.others_wait = true}, kStart + std::chrono::hours(24));
    EXPECT_FALSE(patience_.deadline());
}

TEST_F(PatienceTest, HalfARequestHasTheTimeoutSinceItsLastByte) {
    patience_.received(kStart + seconds(7));
    patience_.look({.in_request = true}, kStart + seconds(8));
    EXPECT_EQ(patience_.deadline(), kStart + seconds(7) + kTimeout);
    EXPECT_EQ(patience_.reason(), DisconnectReason::request_time_out);
}

TEST_F(PatienceTest, WhileOthersWaitItHasTenSecondsFromThenOn) {
    patience_.look({.in_request = true}, kStart + seconds(100));
    patience_.look({.in_request = true, .others_wait = true}, kStart + seconds(120));
    patience_.look({.in_request = true, .others_wait = true}, kStart + seconds(125));
    EXPECT_EQ(patience_.deadline(), kStart + seconds(130));
    EXPECT_EQ(patience_.reason(), DisconnectReason::holds_memory);
    patience_.received(kStart + seconds(126));
    patience_.look({.in_request = true, .received_bytes = 65536, .others_wait = true},
                   kStart + seconds(126));
    EXPECT_EQ(patience_.deadline(), kStart + seconds(136));
    patience_.look({.in_request = true, .received_bytes = 65536}, kStart + seconds(127));
    EXPECT_EQ(patience_.deadline(), kStart + seconds(126) + kTimeout);
}

TEST_F(PatienceTest, AByteNowAndThenIsNotEnoughWhileOthersWait) {
    patience_.look({.in_request = true, .others_wait = true}, kStart);
    for (unsigned second = 1; second < 10; ++second) {
        patience_.received(kStart + seconds(second));
        // First what has come is looked at, then more is asked for.
        for (const bool receiving : {false, true}) {
            patience_.look({.in_request = true,
                            .receiving = receiving,
                            .received_bytes = second,
                            .others_wait = true},
                           kStart + seconds(second));
        }
    }
    EXPECT_EQ(patience_.deadline(), kStart + seconds(10));
}

TEST_F(PatienceTest, WhatTheServerHasWaitedForItsDiskIsNotTheClientsTime) {
    patience_.look({.in_request = true, .others_wait = true}, kStart);
    patience_.excuse(kStart + seconds(1), kStart + seconds(100));
    patience_.look({.in_request = true, .others_wait = true}, kStart + seconds(100));
    EXPECT_EQ(patience_.deadline(), kStart + seconds(110));
}

TEST_F(PatienceTest, AnswersMayWaitAsLongAsNobodyNeedsTheMemory) {
    patience_.look({.answers_waiting = true, .untaken_bytes = 1 << 20}, kStart);
    EXPECT_FALSE(patience_.deadline());
    const auto later = kStart + std::chrono::hours(24);
    patience_.look({.answers_waiting = true, .untaken_bytes = 1 << 20, .others_wait = true}, later);
    EXPECT_EQ(patience_.deadline(), later + seconds(10));
    EXPECT_EQ(patience_.reason(), DisconnectReason::answers_not_taken);
}

TEST_F(PatienceTest, AnswersThatAreTakenSlowlyAreTaken) {
    constexpr std::uint64_t kInSocket = 1 << 20;
    const auto look = [&](std::uint64_t untaken_bytes, seconds at) {
        patience_.look(
            {.answers_waiting = true, .untaken_bytes = untaken_bytes, .others_wait = true},
            kStart + at);
        return *patience_.deadline() - kStart;
    };
    EXPECT_EQ(look(kInSocket, seconds(0)), seconds(10));
    EXPECT_EQ(look(kInSocket - 1000, seconds(5)), seconds(10)) << "a byte now and then";
    EXPECT_EQ(look(kInSocket - 65536, seconds(9)), seconds(19));
    EXPECT_EQ(look(kInSocket - 70000, seconds(18)), seconds(19));
    EXPECT_EQ(look(kInSocket - 131072, seconds(18)), seconds(28));
    // The socket has taken more of them, and is full again.
    patience_.look({.others_wait = true}, kStart + seconds(20));
    EXPECT_EQ(look(kInSocket, seconds(20)), seconds(30));
}

}  // namespace
}  // namespace nbdm
