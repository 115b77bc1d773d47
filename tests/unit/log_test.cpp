// SPDX-License-Identifier: Apache-2.0
#include "control/log.h"

#include <sstream>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

// What `work` wrote to standard error.
template <typename Work>
std::string logged(LogLevel least_important, Work work) {
    testing::internal::CaptureStderr();
    set_log_level(least_important);
    work();
    set_log_level(LogLevel::info);
    return testing::internal::GetCapturedStderr();
}

TEST(Log, LessImportantThanTheMinimumIsLeftOut) {
    const auto all_levels = [] {
        log_error("e");
        log_warning("w");
        log_info("i");
        log_debug("d");
    };
    EXPECT_EQ(logged(LogLevel::error, all_levels), "error: e\n");
    EXPECT_EQ(logged(LogLevel::info, all_levels), "error: e\nwarning: w\ni\n");
    EXPECT_EQ(logged(LogLevel::debug, all_levels), "error: e\nwarning: w\ni\nd\n");
}

TEST(Log, AnEventStaysOneLineWhateverAPeerPutIntoAName) {
    EXPECT_EQ(logged(LogLevel::info, [] { log_info("name 'a\nb\x1b[31m\r'"); }),
              "name 'a b [31m '\n");
}

TEST(Log, AnEventTakesThePlaceOfALineThatIsDrawn) {
    const std::string text = logged(LogLevel::info, [] {
        draw_line("10 %");
        draw_line("20 %");
        log_info("event");
        log_info("another");
        draw_line("30 %");
        leave_drawn_line();
        leave_drawn_line();
    });
    EXPECT_EQ(text, "\r10 %\x1b[K\r20 %\x1b[K\r\x1b[Kevent\nanother\n\r30 %\x1b[K\n");
}

TEST(Log, LinesOfSeveralThreadsDoNotMix) {
    const std::string text = logged(LogLevel::info, [] {
        std::vector<std::jthread> threads;
        for (char name = 'a'; name < 'e'; ++name) {
            threads.emplace_back([name] {
                for (int i = 0; i < 200; ++i) {
                    log_info(std::string(100, name));
                }
            });
        }
    });
    std::istringstream lines(text);
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
        EXPECT_EQ(line, std::string(100, line[0]));
    }
    EXPECT_EQ(count, 800);
}

// The journal is looked for once in a process, so this needs one of its own.
TEST(LogDeathTest, LinesCarryAPriorityWhenTheJournalReadsThem) {
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
    EXPECT_EXIT(
        {
            struct stat status {};
            ::fstat(STDERR_FILENO, &status);
            const std::string stream =
                std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
            ::setenv("JOURNAL_STREAM", stream.c_str(), 1);
            set_log_level(LogLevel::debug);
            log_error("e");
            log_warning("w");
            log_info("i");
            log_debug("d");
            ::_exit(0);
        },
        testing::ExitedWithCode(0), "^<3>e\n<4>w\n<6>i\n<7>d\n$");
}

TEST(LogDeathTest, LinesAreForPeopleWhenTheJournalsStreamIsAnother) {
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
    EXPECT_EXIT(
        {
            ::setenv("JOURNAL_STREAM", "8:1", 1);
            log_warning("w");
            ::_exit(0);
        },
        testing::ExitedWithCode(0), "^warning: w\n$");
}

}  // namespace
}  // namespace nbdm
