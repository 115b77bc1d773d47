// SPDX-License-Identifier: Apache-2.0
#include "iothread/time_slice.h"

#include <cstdio>
#include <fstream>
#include <sched.h>
#include <string>
#include <thread>
#include <unistd.h>

#include <sys/resource.h>
#include <sys/utsname.h>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

bool threads_have_slices() {
    utsname kernel{};
    int major = 0;
    int minor = 0;
    return ::uname(&kernel) == 0 && std::sscanf(kernel.release, "%d.%d", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 12));
}

// What the kernel tells of the calling thread's slice; empty where it tells nothing.
std::string slice() {
    std::ifstream file("/proc/self/task/" + std::to_string(::gettid()) + "/sched");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("se.slice")) {
            return line.substr(line.rfind(' ') + 1);
        }
    }
    return "";
}

TEST(TimeSliceTest, LongTurnsAreOfTheThreadThatAsksAndNothingElseOfItChanges) {
    const std::string before = slice();
    std::thread([&] {
        const int nice = ::getpriority(PRIO_PROCESS, 0);
        take_long_turns();
        EXPECT_EQ(::sched_getscheduler(0), SCHED_OTHER);
        EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), nice);
        if (!before.empty() && threads_have_slices()) {
            EXPECT_EQ(slice(), "100000000");
        }
    }).join();
    EXPECT_EQ(slice(), before);
}

TEST(TimeSliceTest, AnotherPolicyIsLeftAlone) {
    std::thread([] {
        const sched_param none{};
        ASSERT_EQ(::sched_setscheduler(0, SCHED_BATCH, &none), 0);
        const std::string before = slice();
        take_long_turns();
        EXPECT_EQ(::sched_getscheduler(0), SCHED_BATCH);
        EXPECT_EQ(slice(), before);
    }).join();
}

}  // namespace
}  // namespace nbdm
