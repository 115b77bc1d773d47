// SPDX-License-Identifier: Apache-2.0
#include "server/disk_stamp.h"

#include <stdexcept>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tests/unit/test_support.h"

namespace nbdm {

TEST(DiskStamp, AWriteRightAfterItChangesIt) {
    const TemporaryDirectory directory;
    const DiskFile file(directory.file("disk"), {.writable = true, .create_bytes = 8192});
    try {
        static_cast<void>(DiskStamp::of(file));
    } catch (const std::runtime_error& error) {
        GTEST_SKIP() << directory.path() << ": " << error.what();
    }
    for (int i = 0; i < 20; ++i) {
        ASSERT_EQ(::pwrite(file.fd(), "x", 1, 0), 1);
        const DiskStamp before = DiskStamp::settled(file);
        EXPECT_EQ(DiskStamp::of(file).difference_from(before), "");
        ASSERT_EQ(::pwrite(file.fd(), "x", 1, 0), 1);
        EXPECT_NE(DiskStamp::of(file).difference_from(before), "");
    }
}

TEST(DiskStamp, EachDifferenceIsNamed) {
    const DiskStamp before{
        .boot_id = "a", .inode = 1, .size_bytes = 2, .modified_ns = 3, .changed_ns = 4};
    const auto difference = [&](auto change) {
        DiskStamp now = before;
        change(now);
        return now.difference_from(before);
    };
    EXPECT_EQ(difference([](DiskStamp&) {}), "");
    EXPECT_NE(difference([](DiskStamp& now) { now.boot_id = "b"; }), "");
    EXPECT_NE(difference([](DiskStamp& now) { now.inode = 2; }), "");
    EXPECT_NE(difference([](DiskStamp& now) { now.size_bytes = 3; }), "");
    EXPECT_NE(difference([](DiskStamp& now) { now.modified_ns = 4; }), "");
    EXPECT_NE(difference([](DiskStamp& now) { now.changed_ns = 3; }), "");
}

TEST(DiskStamp, AFileInMemoryHasNone) {
    const std::string directory = "/dev/shm";
    if (::access(directory.c_str(), W_OK) != 0) {
        GTEST_SKIP() << "no " << directory;
    }
    const std::string path = directory + "/nbd-mirror-unit-" + std::to_string(::getpid());
    const DiskFile file(path, {.writable = true, .create_bytes = 8192});
    ::unlink(path.c_str());
    EXPECT_THROW(static_cast<void>(DiskStamp::of(file)), std::runtime_error);
}

}  // namespace nbdm
