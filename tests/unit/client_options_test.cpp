// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "client/options.h"

namespace nbdm {
namespace {

std::optional<Command> parse(std::vector<std::string> words) {
    words.insert(words.begin(), "nbd-mirror");
    std::vector<char*> arguments;
    for (std::string& word : words) {
        arguments.push_back(word.data());
    }
    return parse_command_line(static_cast<int>(arguments.size()), arguments.data());
}

std::string refusal(const std::vector<std::string>& words) {
    try {
        (void)parse(words);
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "";
}

TEST(Options, MirrorHasTheDefaultsOfTheManual) {
    const auto command = std::get<MirrorCommand>(*parse({"mirror", "server:pool/vm 1", "/t"}));
    const MirrorOptions& options = command.options;
    EXPECT_EQ(options.job, "pool_vm_1");
    EXPECT_EQ(options.disks.front().granularity_bytes, std::nullopt);
    EXPECT_EQ(options.disks.front().copy.engine.connections, 4U);
    EXPECT_EQ(options.disks.front().copy.engine.requests, 16U);
    EXPECT_EQ(options.handover, Handover::retire);
    EXPECT_FALSE(options.cut_over_when_ready);
}

TEST(Options, HooksAreOfAMirrorAndTheirTimeoutIsTheirs) {
    const auto hooks = [](const std::vector<std::string>& more) {
        std::vector<std::string> words = {"mirror", "server:vm", "/t"};
        words.insert(words.end(), more.begin(), more.end());
        return std::get<MirrorCommand>(*parse(words)).options.hooks;
    };
    EXPECT_EQ(hooks({}).directory, std::nullopt);
    EXPECT_EQ(hooks({"--hooks", "/h"}).directory, "/h");
    EXPECT_EQ(hooks({"--hooks", "/h"}).timeout, std::chrono::seconds(30));
    EXPECT_EQ(hooks({"--hooks", "/h", "--hook-timeout", "3600"}).timeout, std::chrono::hours(1));
    // A variable that is not set must not mean that nobody is asked.
    EXPECT_EQ(hooks({"--hooks", ""}).directory, "");
    EXPECT_NE(refusal({"mirror", "server:vm", "/t", "--hook-timeout", "5"}), "");
    for (const char* seconds : {"0", "3601", "1.5", "-1"}) {
        EXPECT_NE(
            refusal({"mirror", "server:vm", "/t", "--hooks", "/h", "--hook-timeout", seconds}), "")
            << seconds;
    }
    EXPECT_NE(refusal({"copy", "a", "b", "--hooks", "/h"}), "");
}

TEST(Options, AMirrorOfWhatCannotReportWritesNamesCopy) {
    EXPECT_NE(refusal({"mirror", "disk.img", "/t"}).find("'copy'"), std::string::npos);
    EXPECT_NE(refusal({"mirror", "nbd://host", "/t"}).find("'copy'"), std::string::npos);
}

TEST(Options, AnExportIsNoTarget) {
    EXPECT_NE(refusal({"copy", "/s", "server:vm"}), "");
    EXPECT_NE(refusal({"mirror", "server:vm", "server:other"}), "");
}

TEST(Options, SizesArePowersOfTwoInTheirLimits) {
    for (const char* size : {"0", "1000", "2K", "128M", "64KB!", "-4K"}) {
        EXPECT_NE(refusal({"mirror", "server:vm", "/t", "--granularity", size}), "") << size;
    }
    const auto command =
        std::get<MirrorCommand>(*parse({"mirror", "server:vm", "/t", "--granularity", "4k"}));
    EXPECT_EQ(command.options.disks.front().granularity_bytes, 4096U);
}

TEST(Options, JobNamesCannotLeaveTheirDirectory) {
    for (const char* job : {"a/b", "..", ".hidden", "", "a b", "ä"}) {
        EXPECT_NE(refusal({"cutover", job}), "") << job;
        EXPECT_NE(refusal({"mirror", "server:vm", "/t", "--job", job}), "") << job;
    }
    EXPECT_NE(refusal({"cancel", std::string(65, 'a')}), "");
    EXPECT_EQ(std::get<JobCommand>(*parse({"cancel", std::string(64, 'a')})).job.size(), 64U);
}

TEST(Options, DefaultJobNamesAreValid) {
    EXPECT_EQ(default_job_name(""), "default");
    for (const char* name : {".hidden", "..", "a/b", "\xc3\xa4"}) {
        const std::string job = default_job_name(name);
        EXPECT_EQ(std::get<MirrorCommand>(*parse({"mirror", std::string("server:") + name, "/t"}))
                      .options.job,
                  job);
    }
}

TEST(Options, LimitsThatAreNotNamedStayAsTheyAre) {
    const auto some =
        std::get<SetCommand>(*parse({"set", "vm1", "--bwlimit", "1G", "--window", "22:00-05:30"}));
    EXPECT_EQ(
        some.limits.to_json(),
        nlohmann::json::parse(R"({"bwlimit_bytes_per_s": 1073741824, "window": "22:00-05:30"})"));
    const auto off = std::get<SetCommand>(*parse(
        {"set", "vm1", "--bwlimit", "off", "--window", "off", "-c", "2", "--max-downtime", "300"}));
    EXPECT_EQ(off.limits.to_json(),
              nlohmann::json::parse(R"({"bwlimit_bytes_per_s": null, "window": null,
                                        "connections": 2, "max_downtime_ms": 300})"));
    const auto tuned = std::get<SetCommand>(*parse({"set", "vm1", "--connections", "auto"}));
    EXPECT_EQ(tuned.limits.to_json(), nlohmann::json::parse(R"({"connections": "auto"})"));
    EXPECT_NE(refusal({"set", "vm1"}), "");
}

TEST(Options, LimitsAreCheckedBeforeAnythingBegins) {
    for (const char* rate : {"0", "63K", "fast", "-1M"}) {
        EXPECT_NE(refusal({"set", "vm1", "--bwlimit", rate}), "") << rate;
        EXPECT_NE(refusal({"copy", "a", "b", "--bwlimit", rate}), "") << rate;
    }
    EXPECT_NE(refusal({"mirror", "server:vm", "/t", "--window", "25:00-01:00"}), "");
    for (const char* connections : {"0", "65", "many"}) {
        EXPECT_NE(refusal({"set", "vm1", "--connections", connections}), "") << connections;
    }
    EXPECT_NE(refusal({"copy", "a", "b", "--connections", "auto"}), "") << "nobody watches it";
}

TEST(LimitChanges, ComeBackAsTheyWereSaid) {
    const auto body = nlohmann::json::parse(R"({"bwlimit_bytes_per_s": 65536, "connections": 64,
                                                "max_downtime_ms": 60000, "window": null})");
    EXPECT_EQ(LimitChanges::from_json(body).to_json(), body);
    EXPECT_EQ(LimitChanges::from_json(nlohmann::json::object()).to_json(),
              nlohmann::json::object());
    const auto tuned = nlohmann::json::parse(R"({"connections": "auto"})");
    EXPECT_EQ(LimitChanges::from_json(tuned).to_json(), tuned);
    for (const char* wrong :
         {R"({"connections": "many"})", R"({"connections": null})",
          R"({"bwlimit_bytes_per_s": 65535})", R"({"bwlimit_bytes_per_s": "1M"})",
          R"({"bwlimit_bytes_per_s": -1})", R"({"connections": 0})", R"({"connections": 1.5})",
          R"({"max_downtime_ms": 60001})", R"({"window": "always"})", R"({"speed": 1})"}) {
        EXPECT_THROW((void)LimitChanges::from_json(nlohmann::json::parse(wrong)),
                     std::invalid_argument)
            << wrong;
    }
}

TEST(Options, WhatIsUnknownIsRefused) {
    EXPECT_NE(refusal({}), "");
    EXPECT_NE(refusal({"move", "a", "b"}), "");
    EXPECT_NE(refusal({"copy", "a"}), "");
    EXPECT_NE(refusal({"copy", "a", "b", "c"}), "");
    EXPECT_NE(refusal({"copy", "a", "b", "-c", "0"}), "");
    EXPECT_NE(refusal({"mirror", "server:vm", "/t", "--max-downtime", "0"}), "");
    EXPECT_NE(refusal({"mirror", "server:vm", "/t", "--handover", "pivot"}), "");
}

}  // namespace
}  // namespace nbdm
