// SPDX-License-Identifier: Apache-2.0
#include "client/time_window.h"

#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

// Central Europe by rule, so that no zone file is needed: an hour ahead, two from the last Sunday
// of March, 2:00, to the last Sunday of October, 3:00.
constexpr const char* kZone = "CET-1CEST,M3.5.0,M10.5.0/3";

std::time_t utc(int year, int month, int day, int hour, int minute) {
    std::tm time{};
    time.tm_year = year - 1900;
    time.tm_mon = month - 1;
    time.tm_mday = day;
    time.tm_hour = hour;
    time.tm_min = minute;
    return ::timegm(&time);
}

class TimeWindowTest : public testing::Test {
  protected:
    TimeWindowTest() : zone_("TZ", kZone) { ::tzset(); }
    ~TimeWindowTest() override { ::tzset(); }

    static bool contains(const std::string& window, std::time_t time) {
        return TimeWindow::parse(window)->contains(time);
    }

  private:
    const ScopedVariable zone_;
};

TEST_F(TimeWindowTest, HoldsItsBeginAndNotItsEnd) {
    EXPECT_FALSE(contains("01:30-04:00", utc(2026, 1, 10, 0, 29)));
    EXPECT_TRUE(contains("01:30-04:00", utc(2026, 1, 10, 0, 30)));
    EXPECT_TRUE(contains("01:30-04:00", utc(2026, 1, 10, 2, 59)));
    EXPECT_FALSE(contains("01:30-04:00", utc(2026, 1, 10, 3, 0)));
}

TEST_F(TimeWindowTest, MayCrossMidnight) {
    EXPECT_TRUE(contains("22:00-05:30", utc(2026, 1, 10, 21, 0)));
    EXPECT_TRUE(contains("22:00-05:30", utc(2026, 1, 10, 23, 30)));
    EXPECT_TRUE(contains("22:00-05:30", utc(2026, 1, 11, 4, 29)));
    EXPECT_FALSE(contains("22:00-05:30", utc(2026, 1, 11, 4, 30)));
    EXPECT_FALSE(contains("22:00-05:30", utc(2026, 1, 10, 12, 0)));
}

TEST_F(TimeWindowTest, GoesByTheClockOnTheWallWhenSummerTimeBegins) {
    // 29 March 2026: 01:00 UTC is when 02:00 becomes 03:00.
    EXPECT_TRUE(contains("01:00-04:00", utc(2026, 3, 29, 0, 59)));
    EXPECT_TRUE(contains("01:00-04:00", utc(2026, 3, 29, 1, 0)));
    EXPECT_FALSE(contains("01:00-04:00", utc(2026, 3, 29, 2, 0)));
    EXPECT_FALSE(contains("02:00-03:00", utc(2026, 3, 29, 0, 59)));
    EXPECT_FALSE(contains("02:00-03:00", utc(2026, 3, 29, 1, 0)));
}

TEST_F(TimeWindowTest, CountsTwiceWhatExistsTwiceWhenSummerTimeEnds) {
    // 25 October 2026: 01:00 UTC is when 03:00 becomes 02:00.
    EXPECT_TRUE(contains("02:00-03:00", utc(2026, 10, 25, 0, 30)));
    EXPECT_TRUE(contains("02:00-03:00", utc(2026, 10, 25, 1, 30)));
    EXPECT_FALSE(contains("02:00-03:00", utc(2026, 10, 25, 2, 0)));
}

TEST(TimeWindow, IsReadExactlyAndSaysItself) {
    EXPECT_EQ(TimeWindow::parse("22:05-05:30")->text(), "22:05-05:30");
    for (const char* wrong : {"", "22:00", "22:00-", "2:00-05:00", "22:00-24:00", "22:60-05:00",
                              "22:00-22:00", "22:00-05:00 ", "22-05", "aa:bb-cc:dd"}) {
        EXPECT_FALSE(TimeWindow::parse(wrong)) << wrong;
    }
}

}  // namespace
}  // namespace nbdm
