// SPDX-License-Identifier: Apache-2.0
#include "client/stall_watch.h"

#include <gtest/gtest.h>

namespace nbdm {

using std::chrono::seconds;
using Activity = StallWatch::Activity;

constexpr StallWatch::Clock::time_point kStart{seconds(1000)};

TEST(StallWatch, ACopyThatCompletesNothingStandsStill) {
    StallWatch watch;
    watch.begin(Activity::copying, kStart);
    watch.look(1, kStart + seconds(5));
    watch.look(1, kStart + seconds(14));
    EXPECT_FALSE(watch.stalled());
    watch.look(1, kStart + seconds(15));
    EXPECT_TRUE(watch.stalled());
    EXPECT_TRUE(watch.hopeless());
    watch.look(2, kStart + seconds(16));
    EXPECT_FALSE(watch.stalled());
}

TEST(StallWatch, AFlushMayTakeLonger) {
    StallWatch watch;
    watch.begin(Activity::flushing, kStart);
    watch.look(0, kStart + seconds(30));
    EXPECT_TRUE(watch.stalled());
    EXPECT_FALSE(watch.hopeless());
    EXPECT_NE(watch.sentence().find("flushing"), std::string::npos);
    watch.look(0, kStart + seconds(60));
    EXPECT_TRUE(watch.hopeless());
}

TEST(StallWatch, BetweenPassesNothingStandsStill) {
    StallWatch watch;
    watch.begin(Activity::none, kStart);
    watch.look(0, kStart + seconds(100));
    EXPECT_FALSE(watch.stalled());
    watch.begin(Activity::copying, kStart + seconds(101));
    watch.look(0, kStart + seconds(110));
    EXPECT_FALSE(watch.stalled());
}

}  // namespace nbdm
