// SPDX-License-Identifier: Apache-2.0
#include "client/watch/job_page.h"

#include <gtest/gtest.h>

#include "client/watch/job_line.h"
#include "client/watch/job_words.h"

namespace nbdm {
namespace {

constexpr TextStyle kPlain{.unicode = true, .colours = TextStyle::Colours::none};
constexpr TextStyle kMany{.unicode = true, .colours = TextStyle::Colours::many};
constexpr std::uint64_t kGib = std::uint64_t{1} << 30U;

DiskView some_disk(const std::string& name) {
    DiskView disk;
    disk.source = "server:" + name + "@/run/nbd-mirror/server.sock";
    disk.target = "nbd://target.example.com:10809/" + name;
    disk.size_bytes = 40 * kGib;
    disk.moved_bytes = 10 * kGib;
    disk.total_bytes = 20 * kGib;
    disk.dirty_bytes = kGib / 4;
    disk.passes = 3;
    disk.copy_rate = 200e6;
    disk.dirty_rate = 30e6;
    disk.cells.assign(1024, {.moved = 9});
    disk.cells[7].dirty = 1;
    return disk;
}

JobView some_job(std::size_t disks) {
    JobView job;
    job.job = "vm1";
    job.phase = Phase::catching_up;
    job.connections = 4;
    job.bwlimit_bytes_per_s = kGib;
    job.window = "22:00-06:00";
    for (std::size_t i = 0; i < disks; ++i) {
        job.disks.push_back(some_disk("disk" + std::to_string(i)));
    }
    job.eta_s = 75;
    job.throttled = true;
    job.throttle_ms = 1.5;
    job.expected_downtime_ms = 1200;
    job.max_downtime_ms = 500;
    job.error = "the hand-over was given up: " + std::string(300, 'x');
    job.silent = std::chrono::seconds(12);
    return job;
}

std::string page(const JobView& job, std::size_t columns, std::size_t rows,
                 const TextStyle& style = kPlain) {
    const RateHistory history(30, RateSample{.copy = 3, .dirty = 1});
    std::string all;
    for (const std::string& line : draw_job_page(job, history,
                                                 {.columns = columns,
                                                 .rows = rows,
                                                 .style = style,
                                                 .corner = "12:34:56",
                                                 .foot = "q leaves"})) {
        all += line + '\n';
    }
    return all;
}

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
    for (const std::string& part : parts) {
        EXPECT_NE(text.find(part), std::string::npos) << part << " in:\n" << text;
    }
}

void expect_fits(const JobView& job, std::size_t columns, std::size_t rows) {
    const RateHistory history(500, RateSample{.copy = 3, .dirty = std::nullopt});
    const std::vector<std::string> lines = draw_job_page(
        job, history,
        {.columns = columns, .rows = rows, .style = kPlain, .corner = "c", .foot = "f"});
    ASSERT_LE(lines.size(), rows);
    for (const std::string& line : lines) {
        ASSERT_LE(columns_of(line) + 1, std::max<std::size_t>(columns, 1)) << line;
    }
}

TEST(JobPage, FitsAnyTerminal) {
    for (const std::size_t disks : {0U, 1U, 3U, 40U}) {
        for (std::size_t columns = 0; columns < 200; columns += 9) {
            for (std::size_t rows = 0; rows < 60; ++rows) {
                expect_fits(some_job(disks), columns, rows);
            }
        }
    }
}

TEST(JobPage, FillsWhatThereIs) {
    JobView job = some_job(1);
    job.error.clear();
    for (const std::size_t rows : {10U, 24U, 30U}) {
        const std::string text = page(job, 80, rows);
        EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), rows) << text;
    }
}

TEST(JobPage, TellsAllIn80By24) {
    JobView job = some_job(1);
    job.silent.reset();
    job.error.clear();
    expect_parts(page(job, 80, 24),
                 {"[CATCHING UP]", "vm1", "server:disk0", "50 %", "1 min 15 s left",
                  "10.0 GiB of 20.0 GiB", "256.0 MiB dirty", "pass 3", "█", "◆", "190.7 MiB/s",
                  "limit 1.0 GiB/s", "28.6 MiB/s", "1.2 s expected", "500 ms allowed",
                  "each write delayed by 1.5 ms", "4 connections", "q leaves", "12:34:56"});
    job.connections_auto = true;
    expect_parts(page(job, 80, 24), {"4 connections (auto)"});
}

TEST(JobPage, InASmallTerminalWhatMattersMostRemains) {
    JobView job = some_job(1);
    job.silent.reset();
    job.error = "target full";
    expect_parts(page(job, 40, 10),
                 {"CATCHING UP", "50 %", "256.0 MiB dirty", "target full", "downtime", "◆"});
}

TEST(JobPage, ShowsEachOfSeveralDisks) {
    JobView job = some_job(3);
    job.error.clear();
    job.silent.reset();
    const std::string text = page(job, 100, 40);
    expect_parts(text, {"disk0", "disk1", "disk2", "572.2 MiB/s"});
    EXPECT_EQ(page(some_job(40), 80, 24).find("disk39"), std::string::npos);
    expect_parts(page(some_job(40), 80, 24), {"more disks"});
}

TEST(JobPage, ColoursOnlyAdd) {
    const std::string coloured = page(some_job(1), 80, 24, kMany);
    EXPECT_NE(coloured.find("\x1b["), std::string::npos);
    EXPECT_EQ(page(some_job(1), 80, 24).find('\x1b'), std::string::npos);
}

TEST(JobPage, AJobThatDoesNotAnswerIsNotShownAsIfItDid) {
    expect_parts(page(some_job(1), 80, 24), {"NO ANSWER", "no answer from the job for 12 s"});
}

TEST(JobPage, APausedJobSaysHowItGoesOn) {
    JobView job = some_job(1);
    job.silent.reset();
    job.paused = Paused::by_operator;
    expect_parts(page(job, 80, 24), {"[PAUSED]", "while catching up", "nbd-mirror resume vm1"});
    job.paused = Paused::by_window;
    expect_parts(page(job, 80, 24), {"[PAUSED]", "22:00-06:00"});
}

TEST(JobPage, WhatIsNotKnownIsNotInvented) {
    JobView job;
    job.job = "vm1";
    job.disks.resize(1);
    std::string text;
    for (const std::string& line : draw_job_page(
             job, {}, {.columns = 80, .rows = 24, .style = kPlain, .corner = {}, .foot = {}})) {
        text += line + '\n';
    }
    for (const char* invented : {"left", "allowed", "100 %", "█", " 0 B", "→"}) {
        EXPECT_EQ(text.find(invented), std::string::npos) << invented << " in:\n" << text;
    }
}

TEST(JobLine, IsPlainText) {
    JobView job = some_job(2);
    job.job = "grün";
    const std::string line = job_line(job);
    expect_parts(line, {"gr?n: catching_up, 50 %, 20.0 GiB of 40.0 GiB", "512.0 MiB dirty",
                        "381.5 MiB/s", "1 min 15 s left", "each write delayed by 1.5 ms",
                        "downtime 1.2 s expected", "no answer for 12 s"});
    EXPECT_TRUE(std::all_of(line.begin(), line.end(), [](char c) { return c >= ' ' && c <= '~'; }));
}

TEST(JobWords, TextIsBrokenBetweenWords) {
    using Lines = std::vector<std::string>;
    EXPECT_EQ(wrapped("one two three", 7, 5, "~"), (Lines{"one two", "three"}));
    EXPECT_EQ(wrapped("abcdefgh ij", 4, 5, "~"), (Lines{"abcd", "efgh", "ij"}));
    EXPECT_EQ(wrapped("one two three", 4, 2, "~"), (Lines{"one", "two~"}));
    EXPECT_EQ(wrapped("", 4, 2, "~"), Lines{});
    EXPECT_EQ(wrapped("grün grün", 4, 2, "~"), (Lines{"grün", "grün"}));
    EXPECT_EQ(wrapped("a", 0, 2, "~"), Lines{});
}

TEST(JobWords, BothEndsGetTheirShareOfALine) {
    DiskView disk;
    disk.source = "server:vm1";
    disk.target = "nbd://a.very.long.name.example.com/vm1";
    EXPECT_EQ(ends_of(disk, 80, glyphs_of(kPlain)), disk.source + " → " + disk.target);
    EXPECT_EQ(ends_of(disk, 30, glyphs_of(kPlain)), "server:vm1 → nbd://a.very.lon…");
    disk.source = disk.target;
    EXPECT_EQ(ends_of(disk, 23, glyphs_of(kPlain)), "nbd://a.v… → nbd://a.v…");
}

TEST(JobWords, DisksAreToldApartByTheEndOfTheirNames) {
    DiskView disk;
    for (const auto& [source, name] : std::vector<std::pair<std::string, std::string>>{
             {"server:vm1@/run/s.sock", "vm1"}, {"/var/lib/vm1.img", "vm1.img"}, {"x", "x"}}) {
        disk.source = source;
        EXPECT_EQ(short_name_of(disk), name);
    }
}

TEST(JobWords, NoTimeIsShownAsShorterThanItIs) {
    EXPECT_EQ(format_ms(0), "0 ms");
    EXPECT_EQ(format_ms(0.01), "0.1 ms");
    EXPECT_EQ(format_ms(12.1), "13 ms");
    EXPECT_EQ(format_ms(999.5), "1.0 s");
    EXPECT_EQ(format_ms(1201), "1.3 s");
}

}  // namespace
}  // namespace nbdm
