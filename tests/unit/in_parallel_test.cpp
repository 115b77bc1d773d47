// SPDX-License-Identifier: Apache-2.0
#include "client/in_parallel.h"

#include <atomic>
#include <latch>
#include <set>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

// Until it is asked to.
void wait_for_stop(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
        std::this_thread::yield();
    }
}

TEST(InParallel, AllRunAtOnceEachOnAThreadOfItsOwn) {
    std::latch all(3);
    std::atomic<unsigned> seen{0};
    in_parallel(
        3,
        [&](std::size_t i, const std::stop_token&) {
            all.arrive_and_wait();
            seen += 1U << i;
        },
        [] {});
    EXPECT_EQ(seen, 7U);
}

TEST(InParallel, TicksInTheCallingThreadMeanwhile) {
    std::atomic<bool> ticked{false};
    in_parallel(
        1,
        [&](std::size_t, const std::stop_token&) {
            while (!ticked) {
                std::this_thread::yield();
            }
        },
        [&, caller = std::this_thread::get_id()] {
            EXPECT_EQ(std::this_thread::get_id(), caller);
            ticked = true;
        });
}

TEST(InParallel, OneThatFailsStopsTheOthersAndIsTheCause) {
    std::atomic<unsigned> stopped{0};
    try {
        in_parallel(
            3,
            [&](std::size_t i, const std::stop_token& stop) {
                if (i == 1) {
                    throw std::runtime_error("the cause");
                }
                wait_for_stop(stop);
                ++stopped;
                throw std::runtime_error("a consequence");
            },
            [] {});
        FAIL();
    } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "the cause");
    }
    EXPECT_EQ(stopped, 2U);
}

TEST(InParallel, ATickThatThrowsStopsAll) {
    std::atomic<unsigned> stopped{0};
    EXPECT_THROW(in_parallel(
                     2,
                     [&](std::size_t, const std::stop_token& stop) {
                         wait_for_stop(stop);
                         ++stopped;
                     },
                     [] { throw std::logic_error("enough"); }),
                 std::logic_error);
    EXPECT_EQ(stopped, 2U);
}

}  // namespace
}  // namespace nbdm
