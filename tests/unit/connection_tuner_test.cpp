// SPDX-License-Identifier: Apache-2.0
#include "client/connection_tuner.h"

#include <algorithm>
#include <functional>
#include <random>
#include <utility>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using Curve = std::function<double(double connections)>;

constexpr double kMb = 1e6;

const Curve kLinear = [](double connections) { return 50 * kMb * connections; };
const Curve kFlat = [](double) { return 100 * kMb; };
const Curve kFalling = [](double connections) { return 100 * kMb / connections; };
Curve saturating_at(double best) {
    return [best](double connections) { return 50 * kMb * std::min(connections, best); };
}

// A job whose throughput and whose clients' latencies depend on its connections.
struct Job {
    explicit Job(Curve throughput_curve, unsigned least = 1)
        : throughput(std::move(throughput_curve)), tuner(least) {}

    // The most that it had meanwhile.
    unsigned run(int looks) {
        unsigned most = connections;
        for (int look = 0; look < looks; ++look) {
            ConnectionTuner::Seen seen;
            seen.bytes_per_s = throughput(connections);
            seen.bounded = bounded;
            if (read_us) {
                seen.read_us = read_us(connections);
            }
            if (write_us) {
                seen.write_us = write_us(connections);
            }
            const unsigned before = std::exchange(connections, tuner.look(seen));
            EXPECT_LE(connections, std::max(2 * before, ConnectionTuner::kFirst));
            most = std::max(most, connections);
        }
        return most;
    }

    // What part of these looks was with a number that is `wanted`.
    double share(int looks, const std::function<bool(unsigned)>& wanted) {
        int count = 0;
        for (int look = 0; look < looks; ++look) {
            run(1);
            count += wanted(connections) ? 1 : 0;
        }
        return static_cast<double>(count) / looks;
    }

    Curve throughput;
    Curve read_us;
    Curve write_us;
    bool bounded = false;
    ConnectionTuner tuner;
    unsigned connections = ConnectionTuner::kFirst;
};

TEST(ConnectionTuner, TakesAsManyAsMayBeWhereEachGains) {
    Job job(kLinear);
    EXPECT_EQ(job.run(8), ConnectionTuner::kMost) << "within a few looks";
    EXPECT_EQ(job.run(200), ConnectionTuner::kMost);
    EXPECT_GE(job.connections, ConnectionTuner::kMost - 1);
}

TEST(ConnectionTuner, StaysWhereMoreGainNothingAndTriesSeldomWhatHasFailed) {
    for (const unsigned best : {2U, 3U, 4U, 7U, 11U}) {
        Job job(saturating_at(best));
        job.run(200);
        EXPECT_GE(job.share(100, [&](unsigned now) { return now == best; }), 0.9) << best;
        EXPECT_LE(job.run(100), best + 1) << "a step at a time";
    }
}

TEST(ConnectionTuner, TakesFewerWhereThoseCopyMore) {
    Job job(kFalling);
    job.run(40);
    EXPECT_GE(job.share(100, [](unsigned now) { return now == 1; }), 0.9);
}

TEST(ConnectionTuner, FollowsWhatChanges) {
    Job job(kLinear);
    job.run(20);
    job.throughput = kFalling;
    job.run(600);
    EXPECT_LE(job.connections, 2U);
    job.throughput = kLinear;
    job.run(200);
    EXPECT_GE(job.connections, ConnectionTuner::kMost - 1);
}

TEST(ConnectionTuner, FindsItsWayThroughNoise) {
    std::mt19937 random(1);
    std::uniform_real_distribution<double> noise(0.93, 1.07);
    Job rising([&](double connections) { return noise(random) * kLinear(connections); });
    rising.run(200);
    EXPECT_GE(rising.connections, 12U);
    Job flat([&](double connections) { return noise(random) * kFlat(connections); });
    EXPECT_LE(flat.run(200), 8U);
}

TEST(ConnectionTuner, HoldsWhereSomethingElseBoundsTheThroughput) {
    Job job(saturating_at(8));
    job.run(20);
    const unsigned found = job.connections;
    job.bounded = true;
    EXPECT_LE(job.run(100), std::max(found, 8U));
    const unsigned held = job.connections;
    job.throughput = kFalling;
    EXPECT_EQ(job.run(100), held);
    EXPECT_EQ(job.connections, held);

    Job idle([](double) { return 0; });
    EXPECT_EQ(idle.run(100), ConnectionTuner::kFirst);
    EXPECT_EQ(idle.connections, ConnectionTuner::kFirst);
}

TEST(ConnectionTuner, WhatIsNotProvenIsTakenBackWhenItCannotBeProven) {
    Job job(kLinear);
    job.run(2);
    EXPECT_EQ(job.connections, 4U);
    job.bounded = true;
    job.run(1);
    EXPECT_EQ(job.connections, 2U);
}

TEST(ConnectionTuner, GivesWayWhenClientsGetSlowerByMoreThanHalf) {
    for (const bool reads : {true, false}) {
        Job job(kLinear);
        Curve& latency = reads ? job.read_us : job.write_us;
        // Beside 8 connections and more it is more than half as long again.
        latency = [](double connections) { return connections < 8 ? 100 : 160; };
        EXPECT_EQ(job.run(6), 8U);
        EXPECT_EQ(job.connections, 4U);
        EXPECT_EQ(job.run(8), 4U) << "nothing is tried right after that";
        EXPECT_LE(job.share(400, [](unsigned now) { return now >= 8; }), 0.05);
        EXPECT_GE(job.share(400, [](unsigned now) { return now >= 4; }), 0.9);
    }
}

TEST(ConnectionTuner, ASmallerRiseAndASingleBurstAreNoReason) {
    Job job(kLinear);
    job.read_us = [](double connections) { return 100 + 2 * connections; };
    job.run(20);
    EXPECT_GE(job.connections, ConnectionTuner::kMost - 1);
    job.read_us = [](double) { return 1000; };
    job.run(1);
    job.read_us = [](double) { return 120; };
    job.run(1);
    EXPECT_GE(job.connections, ConnectionTuner::kMost - 1);
}

TEST(ConnectionTuner, WhatNobodyNoticesIsNoReason) {
    Job job(kLinear);
    job.read_us = [](double connections) { return 3 * connections; };
    job.run(40);
    EXPECT_GE(job.connections, ConnectionTuner::kMost - 1);
}

TEST(ConnectionTuner, GivesWayAlsoWhereSomethingElseBoundsTheThroughput) {
    Job job(kLinear);
    job.read_us = [](double) { return 100; };
    job.run(20);
    job.bounded = true;
    job.read_us = [](double connections) { return 100 * connections; };
    job.run(20);
    EXPECT_EQ(job.connections, 1U);
}

TEST(ConnectionTuner, ClientsWhoseWorkHasChangedDoNotKeepItDownForEver) {
    Job job(kLinear);
    job.read_us = [](double) { return 100; };
    job.run(20);
    job.read_us = [](double) { return 1000; };
    job.run(10);
    EXPECT_LE(job.connections, 2U);
    job.run(400);
    EXPECT_GE(job.connections, ConnectionTuner::kMost - 1);
}

TEST(ConnectionTuner, ClientsThatComeLaterAreLookedAtBesideFewConnections) {
    Job job(kLinear);
    job.run(20);
    EXPECT_GE(job.connections, ConnectionTuner::kMost - 1);
    job.read_us = [](double connections) { return connections <= 4 ? 100 : 300; };
    job.run(1);
    EXPECT_EQ(job.connections, ConnectionTuner::kFirst);
    job.run(100);
    EXPECT_LE(job.connections, 5U);
}

TEST(ConnectionTuner, EachDiskHasOneInAnyCase) {
    Job job(kFalling, 5);
    job.connections = 5;
    job.run(100);
    EXPECT_EQ(job.connections, 5U);
    Job many(kLinear, 20);
    many.connections = 20;
    EXPECT_EQ(many.run(100), 20U);
}

}  // namespace
}  // namespace nbdm
