// SPDX-License-Identifier: Apache-2.0
#include "client/watch/job_view.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace nbdm {
namespace {

using nlohmann::json;

TEST(JobView, ReadsWhatAJobSays) {
    JobSnapshot snapshot;
    snapshot.job = "vm1";
    snapshot.phase = Phase::ready;
    snapshot.paused = Paused::by_window;
    snapshot.window = "22:00-06:00";
    snapshot.connections_auto = true;
    DiskSnapshot& disk = snapshot.disks.emplace_back();
    disk.ends.source = "server:vm1";
    disk.moved_bytes = 1;
    disk.total_bytes = 2;
    disk.copy_rate = 10;
    snapshot.expected_downtime_ms = 12;
    snapshot.max_downtime = std::chrono::milliseconds(500);
    snapshot.throttle_delay = std::chrono::microseconds(1500);
    const JobView view = view_of_job(to_json(snapshot));
    EXPECT_EQ(view.job, "vm1");
    EXPECT_EQ(view.phase, Phase::ready);
    EXPECT_EQ(view.paused, Paused::by_window);
    EXPECT_EQ(view.window, "22:00-06:00");
    EXPECT_TRUE(view.connections_auto);
    ASSERT_EQ(view.disks.size(), 1U);
    EXPECT_EQ(view.disks[0].source, "server:vm1");
    EXPECT_EQ(view.disks[0].total_bytes, 2U);
    EXPECT_EQ(view.disks[0].copy_rate, 10.0);
    EXPECT_EQ(view.disks[0].dirty_rate, std::nullopt);
    EXPECT_EQ(view.expected_downtime_ms, 12.0);
    EXPECT_EQ(view.max_downtime_ms, 500.0);
    EXPECT_TRUE(view.throttled);
    EXPECT_EQ(view.throttle_ms, 1.5);
}

TEST(JobView, WhatIsMissingIsNotKnown) {
    for (const json& status : {json::object(), json(), json::array({1}), json("x"),
                               json{{"disks", 3}, {"eta_s", "soon"}, {"throttle", json()}}}) {
        const JobView view = view_of_job(status);
        EXPECT_EQ(view.phase, Phase::preparing);
        EXPECT_TRUE(view.disks.empty());
        EXPECT_EQ(view.eta_s, std::nullopt);
        EXPECT_EQ(view.max_downtime_ms, std::nullopt);
        EXPECT_FALSE(view.throttled);
    }
    const JobView view = view_of_job({{"throttle", {{"how", "new"}}}, {"disks", {1, {{"x", 1}}}}});
    EXPECT_TRUE(view.throttled);
    EXPECT_EQ(view.throttle_ms, std::nullopt);
    EXPECT_EQ(view.disks.size(), 2U);
}

TEST(JobView, NumbersThatNoJobTellsDoNoHarm) {
    const JobView view = view_of_job(
        {{"connections", -4},
         {"disks", {{{"size_bytes", 1e300}, {"moved_bytes", -1}, {"copy_rate_bytes_per_s", -5}}}}});
    EXPECT_EQ(view.connections, 0U);
    EXPECT_EQ(view.disks.at(0).moved_bytes, 0U);
    EXPECT_EQ(view.disks.at(0).size_bytes, std::uint64_t{1} << 63U);
    EXPECT_EQ(view.disks.at(0).copy_rate, 0.0);
}

TEST(JobView, TextsOfOthersCanBeShown) {
    const JobView view = view_of_job({{"job", "a\x1b[31m"},
                                      {"error", "line\r\nline"},
                                      {"window", "\x07"},
                                      {"disks", {{{"source", "\x1b]0;x\x07"}}}}});
    EXPECT_EQ(view.job, "a?[31m");
    EXPECT_EQ(view.error, "line??line");
    EXPECT_EQ(view.window, "?");
    EXPECT_EQ(view.disks.at(0).source, "?]0;x?");
}

TEST(JobView, HasAMapForEachOfSeveralDisks) {
    JobView view = view_of_job({{"disks", {{{"source", "a"}}, {{"source", "b"}}, json::object()}}});
    add_map(view, {{"disks",
                    {{{"cells", 3}, {"moved", "090"}, {"to_do", "900"}, {"written", "991"}},
                     {{"cells", 2}, {"hole", "99"}}}}});
    ASSERT_EQ(view.disks[0].cells.size(), 3U);
    EXPECT_EQ(view.disks[0].cells[0].to_do, 9U);
    EXPECT_EQ(view.disks[0].cells[1].moved, 9U);
    EXPECT_EQ(view.disks[0].cells[2].written, 1U);
    ASSERT_EQ(view.disks[1].cells.size(), 2U);
    EXPECT_EQ(view.disks[1].cells[1].hole, 9U);
    EXPECT_EQ(view.disks[1].cells[1].written, 9U);
    EXPECT_TRUE(view.disks[2].cells.empty());
}

TEST(JobView, AMapThatPromisesMoreThanItSaysIsAsLongAsWhatItSays) {
    JobView view = view_of_job({{"disks", {json::object()}}});
    add_map(view, {{"disks", {{{"cells", 1e18}, {"moved", "99"}, {"dirty", "1"}, {"hole", 7}}}}});
    ASSERT_EQ(view.disks[0].cells.size(), 2U);
    EXPECT_EQ(view.disks[0].cells[1].dirty, 0U);
    add_map(view, json());
    EXPECT_EQ(view.disks[0].cells.size(), 2U);
}

JobView with_cell(Phase phase, DiskView::Cell cell) {
    JobView view;
    view.phase = phase;
    view.disks.resize(1);
    view.disks[0].cells = {cell};
    return view;
}

TEST(JobView, AJobThatIsDoneHasMovedItsMap) {
    const JobView before = with_cell(
        Phase::cutting_over, {.hole = 1, .to_do = 2, .moved = 3, .dirty = 2, .in_flight = 1});
    JobView done;
    done.phase = Phase::done;
    done.disks.resize(2);
    keep_maps(done, before);
    ASSERT_EQ(done.disks[0].cells.size(), 1U);
    EXPECT_EQ(done.disks[0].cells[0].moved, 8U);
    EXPECT_EQ(done.disks[0].cells[0].in_flight, 0U);
    JobView failed;
    failed.phase = Phase::failed;
    failed.disks.resize(1);
    keep_maps(failed, before);
    EXPECT_EQ(failed.disks[0].cells[0].to_do, 3U);
    EXPECT_EQ(failed.disks[0].cells[0].dirty, 2U);
}

TEST(Rates, AreThoseOfAllDisksTogether) {
    JobView view;
    view.disks.resize(3);
    view.disks[0].copy_rate = 1;
    view.disks[2].copy_rate = 2;
    EXPECT_EQ(rates_of(view).copy, std::nullopt) << "one of them is not known";
    view.disks[1].copy_rate = 4;
    EXPECT_EQ(rates_of(view).copy, 7.0);
    EXPECT_EQ(rates_of(view).dirty, std::nullopt);
}

}  // namespace
}  // namespace nbdm
