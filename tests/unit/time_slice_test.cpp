// SPDX-License-Identifier: Apache-2.0
#include "iothread/time_slice.h"

#include <cstdint>
#include <sched.h>
#include <thread>
#include <unistd.h>

#include <sys/resource.h>
#include <sys/syscall.h>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

// Of the calling thread, in nanoseconds, as sched_getattr(2) has it; Linux before 6.12 says 0.
std::uint64_t slice() {
    std::uint64_t attributes[6] = {};
    constexpr int kRuntime = 3;
    return ::syscall(SYS_sched_getattr, 0, attributes, sizeof(attributes), 0) == 0
               ? attributes[kRuntime]
               : 0;
}

TEST(TimeSliceTest, LongTurnsAreOfTheThreadThatAsksAndNothingElseOfItChanges) {
    const std::uint64_t before = slice();
    std::thread([&] {
        const int nice = ::getpriority(PRIO_PROCESS, 0);
        take_long_turns();
        EXPECT_EQ(::sched_getscheduler(0), SCHED_OTHER);
        EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), nice);
        if (before != 0) {
            EXPECT_EQ(slice(), 100'000'000U);
        }
    }).join();
    EXPECT_EQ(slice(), before);
}

TEST(TimeSliceTest, AnotherPolicyIsLeftAlone) {
    std::thread([] {
        const sched_param none{};
        ASSERT_EQ(::sched_setscheduler(0, SCHED_BATCH, &none), 0);
        const std::uint64_t before = slice();
        take_long_turns();
        EXPECT_EQ(::sched_getscheduler(0), SCHED_BATCH);
        EXPECT_EQ(slice(), before);
    }).join();
}

}  // namespace
}  // namespace nbdm
