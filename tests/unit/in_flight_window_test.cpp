// SPDX-License-Identifier: Apache-2.0
#include "client/in_flight_window.h"

#include <algorithm>
#include <climits>
#include <functional>
#include <random>
#include <utility>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using namespace std::chrono_literals;
using Clock = InFlightWindow::Clock;

constexpr unsigned kFew = InFlightWindow::kFewPerWorker;
constexpr unsigned kFirst = InFlightWindow::kFewWorkers * kFew;
constexpr double kPieceBytes = 256 << 10;

// A job whose pieces take their time, so that its throughput depends on how many are under way.
class Job {
  public:
    using Curve = std::function<double(double pieces)>;  // bytes per second

    explicit Job(Curve throughput, InFlightWindow::Limits limits = {})
        : throughput_(std::move(throughput)), window_(limits) {}

    // What part of the time there were between `least` and `most` under way.
    double share(Clock::duration time, unsigned least, unsigned most) {
        std::chrono::duration<double> in{0};
        std::chrono::duration<double> all{0};
        while (all < time) {
            const unsigned pieces = window_.pieces();
            const std::chrono::duration<double> step(kPieceBytes / (throughput_(pieces) * noise()));
            all += step;
            if (pieces >= least && pieces <= most) {
                in += step;
            }
            if (now_ >= next_stall_) {
                now_ += stall_;
                next_stall_ = now_ + between_stalls_;
            }
            now_ += std::chrono::duration_cast<Clock::duration>(step);
            window_.finished(static_cast<std::uint64_t>(kPieceBytes), now_);
        }
        return in / all;
    }
    void run(Clock::duration time) { (void)share(time, 0, UINT_MAX); }

    void set_noise(double part) { part_ = part; }
    void set_stalls(Clock::duration stall, Clock::duration between) {
        stall_ = stall;
        between_stalls_ = between;
        next_stall_ = now_ + between;
    }
    void set_throughput(Curve curve) { throughput_ = std::move(curve); }
    [[nodiscard]] InFlightWindow& window() { return window_; }

  private:
    // Each piece takes longer or shorter than it should.
    double noise() { return std::uniform_real_distribution(1 - part_, 1 + part_)(random_); }

    Curve throughput_;
    InFlightWindow window_;
    Clock::time_point now_ = Clock::time_point(1h);
    double part_ = 0;
    Clock::duration stall_{};
    Clock::duration between_stalls_{};
    Clock::time_point next_stall_ = Clock::time_point::max();
    std::mt19937 random_{7};
};

Job::Curve storage(double latency_s, double most_at_a_time) {
    return
        [=](double pieces) { return std::min(pieces, most_at_a_time) * kPieceBytes / latency_s; };
}
const Job::Curve kMemory = [](double) { return 2e9; };

TEST(InFlightWindow, IsSpreadOverAsFewConnectionsAsHaveRoom) {
    const InFlightWindow window({.workers = 4, .per_worker = 16});
    EXPECT_EQ(window.pieces(), kFirst);
    EXPECT_EQ(window.per_worker(), kFew);
    EXPECT_EQ(window.workers(), 2U);
    const InFlightWindow one({.workers = 1, .per_worker = 16});
    EXPECT_EQ(one.pieces(), kFew);
    EXPECT_EQ(one.workers(), 1U);
    const InFlightWindow narrow({.workers = 4, .per_worker = 1});
    EXPECT_EQ(narrow.pieces(), 2U);
    EXPECT_EQ(narrow.per_worker(), 1U);
    EXPECT_EQ(narrow.workers(), 2U);
}

TEST(InFlightWindow, BeginsWithWhatItIsTold) {
    Job job(kMemory, {.workers = 3, .per_worker = 32, .first_per_worker = 32});
    EXPECT_EQ(job.window().pieces(), 96U);
    EXPECT_EQ(job.window().workers(), 3U);
    job.run(10s);
    EXPECT_LT(job.window().pieces(), 16U);
}

TEST(InFlightWindow, StaysSmallWhereMoreGainsNothing) {
    Job job(kMemory);
    job.set_noise(0.2);
    EXPECT_GT(job.share(20s, kFirst, kFirst), 0.9);
}

TEST(InFlightWindow, GrowsToAllThatIsAllowedWhereStorageAnswersLate) {
    for (const double latency_s : {0.001, 0.01, 0.1}) {
        Job job(storage(latency_s, 1000));
        job.set_noise(0.1);
        // Each doubling takes two slices of some turns.
        job.run(std::chrono::ceil<Clock::duration>(
            std::chrono::duration<double>(0.3 + 24 * latency_s)));
        EXPECT_GE(job.window().pieces(), 32U) << latency_s;
        EXPECT_GT(job.share(60s, 64, 64), 0.8) << latency_s;
    }
}

TEST(InFlightWindow, FindsWhatReachesAllOfTheThroughput) {
    Job job(storage(0.005, 16));
    job.set_noise(0.1);
    job.run(3s);
    EXPECT_GT(job.share(60s, 16, 16), 0.8);
}

TEST(InFlightWindow, FollowsATargetThatChanges) {
    Job job(kMemory);
    job.run(10s);
    job.set_throughput(storage(0.01, 1000));
    job.run(20s);
    EXPECT_GT(job.share(60s, 64, 64), 0.8);
    job.set_throughput(kMemory);
    job.run(30s);
    EXPECT_GT(job.share(60s, kFirst, kFirst), 0.8);
}

TEST(InFlightWindow, WhatIsInterruptedDecidesNothing) {
    Job job(storage(0.01, 1000));
    for (int turn = 0; turn < 1000; ++turn) {
        job.run(5ms);
        job.window().interrupted();
        ASSERT_LE(job.window().pieces(), 2 * kFirst);
    }
}

TEST(InFlightWindow, ShortRoundsDecideTogether) {
    Job job(storage(0.01, 1000));
    for (int round = 0; round < 30; ++round) {
        for (int piece = 0; piece < 80; ++piece) {
            job.run(1us);
        }
        job.window().interrupted();
    }
    EXPECT_GE(job.window().pieces(), 32U);
}

TEST(InFlightWindow, MoreThatReachTheJobsLimitAreKept) {
    Job job(storage(0.01, 1000));
    while (job.window().pieces() == kFirst) {
        job.run(1ms);
    }
    job.window().limited();
    EXPECT_EQ(job.window().pieces(), 2 * kFirst);
    job.window().limited();
    EXPECT_EQ(job.window().pieces(), 2 * kFirst);
}

TEST(InFlightWindow, WithoutDataNothingIsDecided) {
    Job job(kMemory);
    Clock::time_point now = Clock::time_point(2h);
    // The slices of one kind see data, the others none.
    for (int piece = 0; piece < 10'000; ++piece) {
        now += 1ms;
        job.window().finished(job.window().pieces() == kFirst ? 0 : 1, now);
        EXPECT_LE(job.window().pieces(), 2 * kFirst);
    }
}

TEST(InFlightWindow, ATargetThatStopsForFlushesIsStillFound) {
    // A third of the time nothing comes.
    Job job(storage(0.005, 1000));
    job.set_stalls(50ms, 100ms);
    job.run(10s);
    EXPECT_GT(job.share(60s, 32, 64), 0.8);
}

TEST(InFlightWindow, ConnectionsThatComeAndGoLeaveItAsItWas) {
    InFlightWindow window({.workers = 2, .per_worker = 16, .first_per_worker = 16});
    for (int turn = 0; turn < 10; ++turn) {
        window.set_workers(4);
        EXPECT_EQ(window.pieces(), 64U);
        window.set_workers(2);
        EXPECT_EQ(window.pieces(), 32U);
    }
}

TEST(InFlightWindow, ConnectionsThatAreAddedAreUsed) {
    InFlightWindow window({.workers = 2, .per_worker = 16});
    window.set_workers(6);
    EXPECT_EQ(window.workers(), 6U);
    window.set_workers(1);
    EXPECT_EQ(window.workers(), 1U);
    EXPECT_EQ(window.pieces(), kFew);
}

}  // namespace
}  // namespace nbdm
