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

    static RecordedJob one_disk() { return {.session = Session("vm1-1", 7), .disks = {disk("a")}}; }

    const TemporaryDirectory directory_;
    const ScopedVariable state_{"NBD_MIRROR_STATE_DIR", directory_.path().c_str()};
    JobRecord record_{"vm1"};
};

TEST_F(JobRecordTest, WhatWasWrittenIsReadByAnotherProcess) {
    EXPECT_FALSE(record_.read());
    EXPECT_FALSE(record_.stands());
    record_.write({.session = Session("vm1-1", 7), .disks = {disk("a"), disk("b")}});
    EXPECT_TRUE(record_.stands());
    DiskRecord changed = disk("b");
    changed.compare = true;
    changed.content = {.disk = 42, .fillers = 7};
    record_.replace(1, changed);
    JobRecord other("vm1");
    EXPECT_FALSE(other.stands());
    const auto read = other.read();
    ASSERT_TRUE(read && read->disks.size() == 2);
    EXPECT_EQ(read->session.id(), "vm1-1");
    EXPECT_EQ(read->session.epoch(), 7U);
    EXPECT_EQ(read->disks.at(0).source, "server:a");
    EXPECT_FALSE(read->disks.at(0).compare);
    EXPECT_EQ(read->disks.at(1).target, "nbd://there/b");
    EXPECT_EQ(read->disks.at(1).size_bytes, std::uint64_t{1} << 40);
    EXPECT_EQ(read->disks.at(1).tracker.incarnation, UINT32_MAX);
    EXPECT_TRUE(read->disks.at(1).compare);
    EXPECT_EQ(read->disks.at(1).content->disk, 42U);
    EXPECT_EQ(read->disks.at(1).content->fillers, 7U);
    EXPECT_FALSE(read->disks.at(0).content);
    other.take_up(*read);
    EXPECT_TRUE(other.stands());
    other.replace(Session("vm1-1", 8));
    EXPECT_EQ(record_.read()->session.epoch(), 8U);
    EXPECT_EQ(record_.read()->disks.at(1).target, "nbd://there/b");
}

TEST_F(JobRecordTest, OnceRemovedThereIsNothing) {
    record_.write(one_disk());
    record_.remove();
    EXPECT_FALSE(record_.stands());
    EXPECT_FALSE(record_.read());
}

TEST_F(JobRecordTest, AnothersIsNotRemoved) {
    record_.write(one_disk());
    JobRecord other("vm1");
    other.remove();
    EXPECT_TRUE(record_.read());
}

TEST_F(JobRecordTest, WhatCouldNotBeWrittenDoesNotStand) {
    std::filesystem::remove(directory_.file("jobs"));
    EXPECT_THROW(record_.write(one_disk()), std::system_error);
    EXPECT_FALSE(record_.stands());
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
