// SPDX-License-Identifier: Apache-2.0
#include "client/downtime_forecast.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kMiB = 1 << 20;

TEST(DowntimeForecast, NothingLeftTakesAFlush) {
    DowntimeForecast forecast;
    EXPECT_TRUE(forecast.fits(0, milliseconds(1)));
    forecast.learn(0, milliseconds(0), milliseconds(40));
    EXPECT_DOUBLE_EQ(forecast.expected(0).value().count(), 40);
    EXPECT_TRUE(forecast.fits(0, milliseconds(1)));  // it cannot get any better
}

TEST(DowntimeForecast, WithoutARateOnlyLittleFits) {
    const DowntimeForecast forecast;
    EXPECT_EQ(forecast.expected(1), std::nullopt);
    EXPECT_TRUE(forecast.fits(kMiB - 1, milliseconds(1)));
    EXPECT_FALSE(forecast.fits(kMiB, milliseconds(60'000)));
}

TEST(DowntimeForecast, CountsCopyingAndTheFlush) {
    DowntimeForecast forecast;
    forecast.learn(100 * kMiB, milliseconds(1000), milliseconds(100));
    EXPECT_DOUBLE_EQ(forecast.copy_bytes_per_s(), 100.0 * kMiB);
    EXPECT_DOUBLE_EQ(forecast.expected(10 * kMiB).value().count(), 200);
    EXPECT_TRUE(forecast.fits(10 * kMiB, milliseconds(200)));
    EXPECT_FALSE(forecast.fits(10 * kMiB, milliseconds(199)));
}

TEST(DowntimeForecast, AShortRoundSaysNothingOfTheRateButOfTheFlush) {
    DowntimeForecast forecast;
    forecast.learn(100 * kMiB, milliseconds(1000), milliseconds(100));
    forecast.learn(kMiB - 1, milliseconds(500), milliseconds(7));
    EXPECT_DOUBLE_EQ(forecast.copy_bytes_per_s(), 100.0 * kMiB);
    EXPECT_DOUBLE_EQ(forecast.expected(0).value().count(), 7);
}

TEST(DowntimeForecast, ALimitCountsAtOnceAndNoRoundIsFaster) {
    DowntimeForecast forecast;
    forecast.learn(100 * kMiB, milliseconds(1000), milliseconds(0));
    forecast.limit(10 * kMiB);
    EXPECT_DOUBLE_EQ(forecast.copy_bytes_per_s(), 10.0 * kMiB);
    EXPECT_FALSE(forecast.fits(10 * kMiB, milliseconds(500)));
    forecast.limit(1000 * kMiB);
    EXPECT_DOUBLE_EQ(forecast.copy_bytes_per_s(), 100.0 * kMiB);
    forecast.limit(std::nullopt);
    EXPECT_TRUE(forecast.fits(10 * kMiB, milliseconds(500)));
}

}  // namespace
}  // namespace nbdm
