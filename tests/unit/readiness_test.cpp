// SPDX-License-Identifier: Apache-2.0
#include "client/readiness.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kMiB = 1 << 20;

// A job that copies 100 MiB/s and may keep its writers waiting for half a second.
class ReadinessTest : public testing::Test {
  protected:
    ReadinessTest() { round_that_found(10 * kMiB); }
    void round_that_found(std::uint64_t dirty_bytes) {
        readiness.round_ended({.dirty_bytes = dirty_bytes,
                               .copied_bytes = 100 * kMiB,
                               .copying = milliseconds(1000),
                               .flushing = milliseconds(0)});
    }
    bool outgrown(std::uint64_t dirty_bytes, int at_ms) {
        readiness.look(dirty_bytes, begin + milliseconds(at_ms));
        return readiness.is_outgrown();
    }

    const Readiness::Clock::time_point begin = Readiness::Clock::now();
    JobStatus status{"job", {{.source = "a", .target = "b"}}, -1};
    JobLimits limits{status};
    Readiness readiness{status, limits};
};

TEST_F(ReadinessTest, ABurstDoesNotOutgrowIt) {
    EXPECT_FALSE(outgrown(60 * kMiB, 0));
    EXPECT_FALSE(outgrown(60 * kMiB, 900));
    EXPECT_FALSE(outgrown(40 * kMiB, 1000));
    EXPECT_FALSE(outgrown(60 * kMiB, 1100));
}

TEST_F(ReadinessTest, TooMuchForTooLongOutgrowsIt) {
    EXPECT_FALSE(outgrown(60 * kMiB, 0));
    EXPECT_TRUE(outgrown(60 * kMiB, 1000));
}

TEST_F(ReadinessTest, ARoundThatFitsBeginsAnew) {
    EXPECT_FALSE(outgrown(60 * kMiB, 0));
    round_that_found(10 * kMiB);
    EXPECT_TRUE(readiness.last_round_fits());
    EXPECT_FALSE(outgrown(60 * kMiB, 1000));
}

TEST_F(ReadinessTest, ALongDowntimeMayBeMissedForAsLong) {
    LimitChanges changes;
    changes.max_downtime = milliseconds(5000);
    limits.apply(changes);
    EXPECT_FALSE(outgrown(600 * kMiB, 0));
    EXPECT_FALSE(outgrown(600 * kMiB, 4900));
    EXPECT_TRUE(outgrown(600 * kMiB, 5000));
}

TEST_F(ReadinessTest, ALimitCountsAtOnce) {
    EXPECT_TRUE(readiness.last_round_fits());
    LimitChanges changes;
    changes.bwlimit_bytes_per_s = kMiB;
    limits.apply(changes);
    round_that_found(10 * kMiB);
    EXPECT_FALSE(readiness.last_round_fits());
    EXPECT_DOUBLE_EQ(status.snapshot().expected_downtime_ms.value(), 10'000);
}

}  // namespace
}  // namespace nbdm
