// SPDX-License-Identifier: Apache-2.0
#include "client/job_record.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "control/durable_file.h"
#include "control/runtime_paths.h"
#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

class JobRecordTest : public testing::Test {
  protected:
    JobRecordTest() { std::filesystem::create_directory(directory_.file("jobs")); }

    static DiskRecord disk(const std::string& name) {
        return {.source = "server:" + name,
                .target = "nbd://there/" + name,
                .size_bytes = std::uint64_t{1} << 40,
                .tracker = {.name = "mirror.vm1", .incarnation = UINT32_MAX},
                .compare = false};
    }

    const TemporaryDirectory directory_;
    const ScopedVariable state_{"NBD_MIRROR_STATE_DIR", directory_.path().c_str()};
    JobRecord record_{"vm1"};
};

TEST_F(JobRecordTest, WhatWasWrittenIsReadByAnotherProcess) {
    EXPECT_FALSE(record_.read());
    EXPECT_FALSE(record_.written());
    record_.write({disk("a"), disk("b")});
    EXPECT_TRUE(record_.written());
    DiskRecord changed = disk("b");
    changed.compare = true;
    record_.replace(1, changed);
    JobRecord other("vm1");
    EXPECT_FALSE(other.written());
    const auto read = other.read();
    ASSERT_TRUE(read && read->size() == 2);
    EXPECT_EQ(read->at(0).source, "server:a");
    EXPECT_FALSE(read->at(0).compare);
    EXPECT_EQ(read->at(1).target, "nbd://there/b");
    EXPECT_EQ(read->at(1).size_bytes, std::uint64_t{1} << 40);
    EXPECT_EQ(read->at(1).tracker.incarnation, UINT32_MAX);
    EXPECT_TRUE(read->at(1).compare);
}

TEST_F(JobRecordTest, OnceRemovedThereIsNothing) {
    record_.write({disk("a")});
    record_.remove();
    EXPECT_FALSE(record_.written());
    EXPECT_FALSE(record_.read());
}

TEST_F(JobRecordTest, ADamagedOneIsNotTakenForNone) {
    for (const char* text :
         {"", "{}", "[]", R"({"disks": []})", R"({"disks": [{"source": "a"}]})"}) {
        write_file_durably(job_record_path("vm1"), text);
        EXPECT_THROW((void)record_.read(), JobError) << text;
    }
}

}  // namespace
}  // namespace nbdm
