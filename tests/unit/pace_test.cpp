// SPDX-License-Identifier: Apache-2.0
#include "client/pace.h"

#include <chrono>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kRequest = 256 << 10;
constexpr std::uint64_t kRate = 10 << 20;
const Pace::Clock::time_point kStart{std::chrono::hours(1)};

// What begins within `time` when workers ask again as soon as they may, looking every `step`.
std::uint64_t admitted(Pace& pace, Pace::Clock::time_point from, Pace::Clock::duration time,
                       milliseconds step) {
    std::uint64_t bytes = 0;
    for (auto now = from; now < from + time; now += step) {
        while (!pace.admit(kRequest, now)) {
            bytes += kRequest;
        }
    }
    return bytes;
}

TEST(Pace, WithoutALimitEverythingIsAdmitted) {
    Pace pace;
    EXPECT_FALSE(pace.admit(UINT64_MAX, kStart));
    EXPECT_FALSE(pace.admit(UINT64_MAX, kStart));
}

TEST(Pace, ALimitHoldsWithinFivePercentAlsoForLateWorkers) {
    for (const milliseconds step : {milliseconds(1), milliseconds(7), milliseconds(40)}) {
        Pace pace;
        pace.set_rate(kRate);
        const auto bytes = static_cast<double>(admitted(pace, kStart, seconds(5), step));
        EXPECT_NEAR(bytes / (5.0 * kRate), 1, 0.05) << step.count() << " ms";
    }
}

TEST(Pace, WhatWasNotUsedIsNotSavedUp) {
    Pace pace;
    pace.set_rate(kRate);
    ASSERT_FALSE(pace.admit(kRequest, kStart));
    const auto bytes = static_cast<double>(
        admitted(pace, kStart + std::chrono::minutes(5), seconds(5), milliseconds(1)));
    EXPECT_NEAR(bytes / (5.0 * kRate), 1, 0.05);
}

TEST(Pace, ANewRateHoldsAtOnce) {
    Pace pace;
    pace.set_rate(kRate);
    ASSERT_FALSE(pace.admit(100 * kRate, kStart));  // would take 100 s
    const auto ask_again = pace.admit(kRequest, kStart + seconds(1));
    ASSERT_TRUE(ask_again);
    EXPECT_LE(*ask_again, kStart + milliseconds(1100)) << "a change would not be noticed";
    pace.set_rate(2 * kRate);
    const auto bytes =
        static_cast<double>(admitted(pace, kStart + seconds(1), seconds(5), milliseconds(1)));
    EXPECT_NEAR(bytes / (5.0 * 2 * kRate), 1, 0.05);
}

TEST(Pace, PausedNothingIsAdmittedUnlessWritersWait) {
    Pace pace;
    pace.set_paused(true);
    EXPECT_TRUE(pace.admit(1, kStart));
    std::optional<Pace::Urgent> urgent(std::in_place, pace);
    EXPECT_FALSE(pace.admit(1, kStart));
    urgent.reset();
    EXPECT_TRUE(pace.admit(1, kStart));
    pace.set_paused(false);
    EXPECT_FALSE(pace.admit(1, kStart));
}

}  // namespace
}  // namespace nbdm
