// SPDX-License-Identifier: Apache-2.0
#include "server/throttle.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

const Throttle::Clock::time_point kNow{std::chrono::hours(1)};

TEST(Throttle, DelaysNothingUntilItIsTold) {
    Throttle throttle;
    EXPECT_EQ(throttle.begins_at(4096, kNow), kNow);
    EXPECT_EQ(throttle.setting(kNow).delay, microseconds(0));
}

TEST(Throttle, EachWriteIsDelayedUntilTheEnd) {
    Throttle throttle;
    throttle.delay(microseconds(300), kNow + seconds(1));
    EXPECT_EQ(throttle.begins_at(4096, kNow), kNow + microseconds(300));
    EXPECT_EQ(throttle.setting(kNow).delay, microseconds(300));
    const auto end = kNow + seconds(1);
    EXPECT_EQ(throttle.begins_at(4096, end), end);
    EXPECT_EQ(throttle.setting(end).delay, microseconds(0));
}

TEST(Throttle, NoWriteIsStalledForLong) {
    Throttle throttle;
    throttle.delay(seconds(1), {});
    EXPECT_EQ(throttle.begins_at(4096, kNow), kNow + Throttle::kMaxDelay);
    throttle.limit(1, {});
    for (int write = 0; write < 100; ++write) {
        EXPECT_LE(throttle.begins_at(1 << 20, kNow), kNow + Throttle::kMaxDelay);
    }
}

TEST(Throttle, WritesTogetherKeepTheRate) {
    Throttle throttle;
    throttle.limit(100 * 1000 * 1000, {});
    // One after the other, as one writer would.
    auto now = kNow;
    for (int write = 0; write < 1000; ++write) {
        now = throttle.begins_at(100'000, now);
    }
    EXPECT_EQ(now, kNow + milliseconds(999));
    // What was not used is not saved up.
    now += seconds(10);
    EXPECT_EQ(throttle.begins_at(100'000, now), now);
    EXPECT_EQ(throttle.begins_at(100'000, now), now + milliseconds(1));
}

TEST(Throttle, StoppingItLetsWritesGoAtOnce) {
    Throttle throttle;
    throttle.delay(microseconds(300), {});
    throttle.stop();
    EXPECT_EQ(throttle.begins_at(4096, kNow), kNow);
}

}  // namespace
}  // namespace nbdm
