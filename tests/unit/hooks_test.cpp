// SPDX-License-Identifier: Apache-2.0
#include "client/hooks.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <sys/eventfd.h>
#include <sys/stat.h>

#include <gtest/gtest.h>

#include "control/log.h"
#include "iothread/unique_fd.h"
#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

using Texts = std::vector<std::string>;

void nothing() {}

class HooksTest : public testing::Test {
  protected:
    // The tests look at what is refused; what is logged is checked with the program.
    void SetUp() override { set_log_level(LogLevel::error); }
    void TearDown() override { set_log_level(LogLevel::info); }

    void add(const std::string& name, const std::string& body, mode_t mode = 0755) {
        const std::string path = hooks_.file(name);
        std::ofstream(path) << "#!/bin/sh\n" << body << '\n';
        ::chmod(path.c_str(), mode);
    }
    // A hook that writes down how it was called.
    void add_recorder(const std::string& name = "50-recorder") {
        add(name, "echo ${0##*/} $* >> " + other_.file("calls"));
    }
    // As `NAME JOB STEP begin|end STATUS`.
    [[nodiscard]] Texts calls() const {
        std::ifstream file(other_.file("calls"));
        Texts all;
        for (std::string line; std::getline(file, line);) {
            all.push_back(line);
        }
        return all;
    }
    // A hook that ends when `release` is called, at this step and moment only.
    void add_gate(const std::string& when) {
        ASSERT_EQ(::mkfifo(other_.file("gate").c_str(), 0600), 0);
        add("10-gate", "[ \"$2 $3\" != '" + when + "' ] || read x < " + other_.file("gate"));
    }
    void release() { std::ofstream(other_.file("gate")) << "go\n"; }

    [[nodiscard]] Hooks::Options options() const { return {.directory = hooks_.path()}; }
    std::string refusal(Hooks& hooks, HookStep step) {
        try {
            hooks.begin(step, nothing);
        } catch (const HookRefused& refused) {
            return refused.what();
        }
        return "";
    }

    const TemporaryDirectory hooks_;
    const TemporaryDirectory other_;
    const UniqueFd fd_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    JobStatus status_{"vm1", {{"source", "target"}}, fd_.get()};
    Cancellation cancellation_;
};

TEST_F(HooksTest, ExecutableFilesWithPlainNamesAreCalledInTheOrderOfTheirNames) {
    for (const char* name : {"b", "a_2", "10-x", "9-x", "Z", "c.sh", "d~", "e.dpkg-old"}) {
        add(name, "");
    }
    add("not-executable", "", 0644);
    add(".hidden", "");
    std::filesystem::create_directory(hooks_.file("directory"));
    std::filesystem::create_symlink(hooks_.file("b"), hooks_.file("link"));
    std::filesystem::create_symlink(hooks_.file("missing"), hooks_.file("dangling"));
    const HookFiles files = find_hooks(hooks_.path());
    EXPECT_EQ(files.names, Texts({"10-x", "9-x", "Z", "a_2", "b", "link"}));
    // What may have been meant to be called is named with the reason.
    const std::string name = "its name has more than letters, digits, '_' and '-'";
    EXPECT_EQ(files.ignored,
              Texts({"'c.sh' is not called: " + name, "'dangling' is not called: it is not a file",
                     "'directory' is not called: it is not a file", "'d~' is not called: " + name,
                     "'e.dpkg-old' is not called: " + name,
                     "'not-executable' is not called: it is not executable"}));
}

TEST_F(HooksTest, ADirectoryThatIsMissingIsRefusedByItsName) {
    const std::string path = hooks_.file("missing");
    try {
        const Hooks hooks({.directory = path}, status_, cancellation_);
        FAIL() << "it was taken";
    } catch (const std::system_error& error) {
        EXPECT_NE(std::string(error.what()).find("'" + path + "'"), std::string::npos);
    }
}

TEST_F(HooksTest, CallsAreMadeInOrderAndAllOfThemBeforeTheEnd) {
    add_recorder("b");
    add_recorder("a");
    Hooks hooks(options(), status_, cancellation_);
    hooks.begin(HookStep::prepare, nothing);
    EXPECT_EQ(calls(), Texts({"a vm1 prepare begin -", "b vm1 prepare begin -"}));
    hooks.follow(Phase::copying);
    hooks.follow(Phase::failed);
    hooks.finish();
    EXPECT_EQ(calls(),
              Texts({"a vm1 prepare begin -", "b vm1 prepare begin -", "a vm1 prepare end ok",
                     "b vm1 prepare end ok", "a vm1 copy begin -", "b vm1 copy begin -",
                     "a vm1 copy end failed", "b vm1 copy end failed", "a vm1 failed end failed",
                     "b vm1 failed end failed"}));
}

TEST_F(HooksTest, TheInputIsTheStatusOfThatMoment) {
    add("10-input", "cat > " + other_.file("input-") + "$2-$3");
    Hooks hooks(options(), status_, cancellation_);
    hooks.begin(HookStep::prepare, nothing);
    status_.set_phase(Phase::copying);
    hooks.follow(Phase::copying);
    status_.set_phase(Phase::done);
    hooks.finish();
    std::ifstream before(other_.file("input-prepare-begin"));
    EXPECT_EQ(nlohmann::json::parse(before).at("phase"), "preparing");
    std::ifstream after(other_.file("input-copy-begin"));
    EXPECT_EQ(nlohmann::json::parse(after).at("phase"), "copying");
}

TEST_F(HooksTest, ARefusalNamesTheHookAndWhyAndEndsTheCall) {
    add("20-refuse", "[ $3 = end ] || { echo 'disk is busy'; exit 3; }");
    add_recorder();
    Hooks hooks(options(), status_, cancellation_);
    EXPECT_EQ(refusal(hooks, HookStep::prepare),
              "refused by hook '20-refuse' at prepare begin: exit status 3: disk is busy");
    EXPECT_EQ(calls(), Texts());
    // All are told that it came to nothing.
    hooks.follow(Phase::failed);
    hooks.finish();
    EXPECT_EQ(calls(),
              Texts({"50-recorder vm1 prepare end failed", "50-recorder vm1 failed end failed"}));
}

TEST_F(HooksTest, WhateverAHookSaysASentenceIsUtf8) {
    add("20-refuse", "printf 'caf\\351 \\303\\251'; exit 1");
    Hooks hooks(options(), status_, cancellation_);
    status_.set_error(refusal(hooks, HookStep::prepare));
    EXPECT_EQ(
        to_json(status_.snapshot()).at("error"),
        "refused by hook '20-refuse' at prepare begin: exit status 1: caf\xef\xbf\xbd \xc3\xa9");
    EXPECT_NO_THROW((void)to_json(status_.snapshot()).dump());
}

TEST_F(HooksTest, ALateHookRefuses) {
    add("20-late", "exec sleep 1000");
    Hooks hooks({.directory = hooks_.path(), .timeout = std::chrono::milliseconds(20)}, status_,
                cancellation_);
    EXPECT_EQ(refusal(hooks, HookStep::cutover),
              "refused by hook '20-late' at cutover begin: late: not done within 0 s");
}

TEST_F(HooksTest, ADirectoryThatIsGoneRefusesAndElsewhereChangesNothing) {
    Hooks hooks(options(), status_, cancellation_);
    hooks.begin(HookStep::prepare, nothing);
    std::filesystem::remove(hooks_.path());
    hooks.follow(Phase::ready);
    hooks.finish();
    EXPECT_NE(refusal(hooks, HookStep::cutover).find("cannot look into"), std::string::npos);
}

TEST_F(HooksTest, ElsewhereAFailureChangesNothing) {
    add("20-fail", "exit 1");
    add_recorder();
    Hooks hooks(options(), status_, cancellation_);
    hooks.follow(Phase::copying);
    hooks.finish();
    EXPECT_EQ(calls(), Texts({"50-recorder vm1 copy begin -"}));
}

TEST_F(HooksTest, WhoeverWaitsForThemGoesOnWithItsWork) {
    add_gate("cutover begin");
    Hooks hooks(options(), status_, cancellation_);
    int meanwhile = 0;
    hooks.begin(HookStep::cutover, [&] {
        if (++meanwhile == 2) {
            release();
        }
    });
    EXPECT_GE(meanwhile, 2);
}

TEST_F(HooksTest, NobodyElseWaitsForThem) {
    add_gate("copy begin");
    add_recorder();
    Hooks hooks(options(), status_, cancellation_);
    hooks.follow(Phase::copying);
    hooks.follow(Phase::ready);
    EXPECT_EQ(calls(), Texts());
    release();
    hooks.finish();
    EXPECT_EQ(calls(), Texts({"50-recorder vm1 copy begin -", "50-recorder vm1 copy end ok",
                              "50-recorder vm1 ready begin -"}));
}

TEST_F(HooksTest, ACancellationEndsTheHookThatIsWaitedFor) {
    add("10-begun",
        "[ \"$3\" = end ] || { echo begun > " + other_.file("begun") + "; exec sleep 1000; }");
    add_recorder();
    Hooks hooks(options(), status_, cancellation_);
    EXPECT_THROW(hooks.begin(HookStep::cutover,
                             [&] {
                                 if (std::filesystem::exists(other_.file("begun"))) {
                                     cancellation_.request();
                                 }
                             }),
                 Cancelled);
    hooks.follow(Phase::cancelled);
    hooks.finish();
    EXPECT_EQ(calls(), Texts({"50-recorder vm1 cutover end cancelled",
                              "50-recorder vm1 cancelled end cancelled"}));
}

TEST_F(HooksTest, AStepThatIsCancelledBeforeItsHooksAreCalledIsToldToNobody) {
    add_gate("copy begin");
    add_recorder();
    Hooks hooks(options(), status_, cancellation_);
    hooks.follow(Phase::copying);
    cancellation_.request();
    EXPECT_THROW(hooks.begin(HookStep::cutover, nothing), Cancelled);
    release();
    hooks.follow(Phase::cancelled);
    hooks.finish();
    EXPECT_EQ(calls(), Texts({"50-recorder vm1 copy begin -", "50-recorder vm1 copy end ok",
                              "50-recorder vm1 cancelled end cancelled"}));
}

TEST_F(HooksTest, StepsThatAreFasterThanTheHooksAreLeftOutInPairs) {
    add_gate("copy begin");
    add_recorder();
    Hooks hooks(options(), status_, cancellation_);
    hooks.follow(Phase::copying);
    for (int i = 0; i < 100; ++i) {
        hooks.follow(Phase::catching_up);
        hooks.follow(Phase::ready);
    }
    release();
    hooks.follow(Phase::failed);
    hooks.finish();
    const Texts made = calls();
    EXPECT_GT(made.size(), 10U);
    EXPECT_LT(made.size(), 30U);
    EXPECT_EQ(made.back(), "50-recorder vm1 failed end failed");
    // What has begun has ended.
    for (std::size_t i = 0; i + 1 < made.size(); i += 2) {
        const std::string begin = made[i].substr(0, made[i].find(" begin"));
        EXPECT_EQ(made[i + 1].substr(0, begin.size() + 4), begin + " end") << made[i];
    }
}

}  // namespace
}  // namespace nbdm
