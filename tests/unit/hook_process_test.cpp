// SPDX-License-Identifier: Apache-2.0
#include "client/hook_process.h"

#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <unistd.h>

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "iothread/unique_fd.h"
#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

using std::chrono::milliseconds;
using Lines = std::vector<std::string>;

HookProgram program(const std::string& path, std::vector<std::string> arguments = {},
                    std::string input = {}) {
    return {.path = path, .arguments = std::move(arguments), .input = std::move(input)};
}

class HookProcessTest : public testing::Test {
  protected:
    std::string script(const std::string& body) {
        const std::string path = directory_.file("hook");
        std::ofstream(path) << body;
        ::chmod(path.c_str(), 0755);
        return path;
    }

    HookResult run(const HookProgram& program) {
        return run_hook(
            program, [&](std::string_view line) { said_.emplace_back(line); },
            [&] { return unwanted_once_it_spoke_ && !said_.empty(); });
    }
    HookResult run_script(const std::string& body) {
        return run(program(script("#!/bin/sh\n" + body)));
    }

    // A fifo that `sleep` processes of a hook keep open: closed when all of them are gone.
    std::string fifo() {
        std::string path = directory_.file("fifo");
        EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
        fifo_ = UniqueFd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        return path;
    }
    bool all_gone() {
        pollfd fd{fifo_.get(), POLLIN, 0};
        return ::poll(&fd, 1, 20'000) == 1 && (fd.revents & POLLHUP) != 0;
    }

    const TemporaryDirectory directory_;
    UniqueFd fifo_;
    Lines said_;
    bool unwanted_once_it_spoke_ = false;
};

TEST_F(HookProcessTest, ArgumentsAndInputArriveAsTheyAre) {
    const HookResult result = run(program(script("#!/bin/sh\nprintf '%s\\n' \"$#\" \"$@\"\ncat\n"),
                                          {"a b", "", "*", "$HOME"}, "first\nsecond\n"));
    EXPECT_EQ(result.failure, "");
    // An empty line is none.
    EXPECT_EQ(said_, Lines({"4", "a b", "*", "$HOME", "first", "second"}));
}

TEST_F(HookProcessTest, InputThatIsNotReadDelaysNobody) {
    EXPECT_EQ(run(program("/bin/true", {}, std::string(5 << 20, 'x'))).failure, "");
}

TEST_F(HookProcessTest, FailuresSayWhatHappened) {
    EXPECT_EQ(run_script("exit 3").failure, "exit status 3");
    EXPECT_EQ(run_script("kill -9 $$").failure, "ended by signal 9 (Killed)");
    EXPECT_EQ(run(program(directory_.file("missing"))).failure,
              "cannot be started: No such file or directory");
    // There is no shell that would take it for a script.
    EXPECT_EQ(run(program(script("exit 0\n"))).failure, "cannot be started: Exec format error");
}

TEST_F(HookProcessTest, TheLastLineIsToldWithOrWithoutAnEnd) {
    EXPECT_EQ(run_script("echo out; echo err >&2; exit 1").last_line, "err");
    EXPECT_EQ(run_script("echo out; printf busy; exit 1").last_line, "busy");
    EXPECT_EQ(run_script("printf 'busy\\n\\n'; exit 1").last_line, "busy");
    EXPECT_EQ(run_script("exit 1").last_line, "");
}

TEST_F(HookProcessTest, WhatIsLateIsEnded) {
    HookProgram late = program("/bin/sleep", {"1000"});
    late.timeout = milliseconds(20);
    EXPECT_EQ(run(late).failure, "late: not done within 0 s");
}

TEST_F(HookProcessTest, WhatIsEndedIsEndedWithItsGroup) {
    const std::string path = fifo();
    unwanted_once_it_spoke_ = true;
    const HookResult result =
        run_script("sleep 1000 > " + path + " &\nexec 3> " + path + "\necho here\nwait");
    EXPECT_EQ(result.failure, "not wanted any more");
    EXPECT_EQ(said_, Lines({"here"}));
    EXPECT_TRUE(all_gone());
}

TEST_F(HookProcessTest, WhatDoesNotHeedSigtermIsKilled) {
    HookProgram stubborn =
        program(script("#!/bin/sh\ntrap '' TERM\nexec 3> " + fifo() + "\necho here\nsleep 1000\n"));
    stubborn.grace = milliseconds(20);
    unwanted_once_it_spoke_ = true;
    EXPECT_EQ(run(stubborn).failure, "not wanted any more");
    EXPECT_TRUE(all_gone());
}

TEST_F(HookProcessTest, WhatItLeavesRunningIsNeitherWaitedForNorEnded) {
    // It has the hook's output open, and the fifo.
    HookProgram leaver =
        program(script("#!/bin/sh\nexec 3> " + fifo() + "\nsleep 1000 &\necho $!\n"));
    leaver.timeout = milliseconds(5000);
    EXPECT_EQ(run(leaver).failure, "");
    ASSERT_EQ(said_.size(), 1U);
    pollfd fd{fifo_.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&fd, 1, 0), 0) << "it has ended";
    EXPECT_EQ(::kill(std::stoi(said_[0]), SIGKILL), 0);
    EXPECT_TRUE(all_gone());
}

TEST_F(HookProcessTest, OfMuchOutputOnlyTheFirstPartIsSaid) {
    const HookResult result = run_script("yes | head -c 4000000; echo last");
    EXPECT_EQ(result.failure, "");
    EXPECT_EQ(result.last_line, "last");
    EXPECT_EQ(said_.size(), 1009U + 1);
    EXPECT_EQ(said_.back(), "(1998992 more lines are left out)");
}

TEST_F(HookProcessTest, ALongLineIsCut) {
    run_script("printf %05000d 7; echo; echo next");
    ASSERT_EQ(said_.size(), 2U);
    EXPECT_EQ(said_[0], std::string(1024, '0'));
    EXPECT_EQ(said_[1], "next");
}

TEST_F(HookProcessTest, SignalsAreAsAProgramExpectsThem) {
    struct sigaction before {};
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    ASSERT_EQ(::sigaction(SIGPIPE, &ignore, &before), 0);
    run(program("/bin/grep", {"-E", "^Sig(Blk|Ign)", "/proc/self/status"}));
    ASSERT_EQ(::sigaction(SIGPIPE, &before, nullptr), 0);
    ASSERT_EQ(said_.size(), 2U);
    EXPECT_EQ(said_[0], "SigBlk:\t0000000000000000");
    // The C library has 32 and 33 to itself.
    const std::uint64_t ignored = std::stoull(said_[1].substr(said_[1].find('\t')), nullptr, 16);
    EXPECT_EQ(ignored & ~(std::uint64_t{3} << 31), 0U) << said_[1];
}

TEST_F(HookProcessTest, NothingOfThisProcessIsOpenInIt) {
    const UniqueFd stray(::fcntl(STDIN_FILENO, F_DUPFD, 100));  // a library's, without CLOEXEC
    ASSERT_TRUE(stray.valid());
    run(program("/bin/ls", {"/proc/self/fd"}));
    EXPECT_EQ(said_, Lines({"0", "1", "2", "3"}));  // the last is the directory
}

TEST_F(HookProcessTest, ItLeadsAGroupOfItsOwn) {
    run_script("echo $$; cut -d' ' -f5 /proc/$$/stat");
    ASSERT_EQ(said_.size(), 2U);
    EXPECT_EQ(said_[0], said_[1]);
}

}  // namespace
}  // namespace nbdm
