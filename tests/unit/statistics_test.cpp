// SPDX-License-Identifier: Apache-2.0
#include "server/statistics.h"

#include <gtest/gtest.h>

namespace nbdm {

using std::chrono::microseconds;
using std::chrono::nanoseconds;
using wire::Command;

TEST(Statistics, ALatencyIsCountedInTheBucketWhoseBoundItDoesNotExceed) {
    Statistics::Latency latency;
    for (const auto time : {nanoseconds(0), nanoseconds(1), nanoseconds(microseconds(8))}) {
        latency.observe(time);
    }
    EXPECT_EQ(latency.buckets[0].get(), 3U);
    latency.observe(microseconds(8) + nanoseconds(1));
    latency.observe(microseconds(16));
    EXPECT_EQ(latency.buckets[1].get(), 2U);
    constexpr std::size_t kLast = Statistics::Latency::kBuckets - 1;
    latency.observe(Statistics::Latency::upper(kLast));
    EXPECT_EQ(latency.buckets[kLast].get(), 1U);
    latency.observe(Statistics::Latency::upper(kLast) + nanoseconds(1));
    EXPECT_EQ(latency.above.get(), 1U);
}

TEST(Statistics, SumsAreOfEverything) {
    Statistics one;
    one.arrived(Command::write);
    one.succeeded(Command::write, 512);
    one.answered(Command::write, microseconds(100));
    one.arrived(Command::trim);
    one.succeeded(Command::trim, 4096);
    one.failed(wire::Error::no_space);
    one.arrived(static_cast<Command>(4242));  // a client may say anything
    Statistics sum;
    sum.add(one);
    sum.add(one);
    EXPECT_EQ(sum.written_bytes(), 2U * (512 + 4096));
    EXPECT_EQ(sum.read_bytes(), 0U);
    EXPECT_EQ(sum.requests[1].count.get(), 2U);
    EXPECT_EQ(sum.errors[4].get(), 2U);
    EXPECT_EQ(sum.latency[1].total_ns.get(), 200'000U);
}

}  // namespace nbdm
