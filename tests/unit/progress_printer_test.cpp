// SPDX-License-Identifier: Apache-2.0
#include "client/progress_printer.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

JobSnapshot half_way() {
    JobSnapshot snapshot;
    snapshot.phase = Phase::catching_up;
    DiskSnapshot& disk = snapshot.disks.emplace_back();
    disk.moved_bytes = std::uint64_t{3} << 30;
    disk.total_bytes = std::uint64_t{6} << 30;
    disk.dirty_bytes = 5 << 20;
    disk.copy_rate = 512.0 * (1 << 20);
    snapshot.eta_s = 75;
    return snapshot;
}

TEST(Bar, SaysPhaseShareRateDirtyAndTimeLeft) {
    const std::string bar = format_bar(half_way(), 120);
    for (const char* part : {"catching_up", "50 %", "3.0 GiB of 6.0 GiB", "512.0 MiB/s",
                             "dirty 5.0 MiB", "1 min 15 s left"}) {
        EXPECT_NE(bar.find(part), std::string::npos) << part << " in: " << bar;
    }
}

TEST(Bar, OfAPausedJobSaysSoAndShowsNoRate) {
    JobSnapshot snapshot = half_way();
    snapshot.paused = Paused::by_window;
    const std::string bar = format_bar(snapshot, 120);
    EXPECT_EQ(bar.find("paused"), 0u) << bar;
    EXPECT_EQ(bar.find("/s"), std::string::npos) << bar;
}

TEST(Bar, NeverReachesTheLastColumn) {
    for (std::size_t width = 1; width < 200; ++width) {
        EXPECT_LT(format_bar(half_way(), width).size(), width);
    }
}

TEST(Bar, AJobThatHasNothingToDoYetIsNotDone) {
    EXPECT_NE(format_bar(JobSnapshot{}, 80).find(" 0 %"), std::string::npos);
}

TEST(Bar, IsOnlyFullWhenAllIsMoved) {
    JobSnapshot snapshot = half_way();
    snapshot.disks.front().moved_bytes = snapshot.disks.front().total_bytes - 1;
    EXPECT_NE(format_bar(snapshot, 120).find(" 99 %"), std::string::npos);
}

}  // namespace
}  // namespace nbdm
