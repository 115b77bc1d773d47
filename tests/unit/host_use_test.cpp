// SPDX-License-Identifier: Apache-2.0
#include "server/host_use.h"

#include <fstream>
#include <sstream>

#include <sys/sysmacros.h>

#include <gtest/gtest.h>

#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

std::string place_of(unsigned major, unsigned minor) {
    std::istringstream mountinfo(
        "22 28 0:20 / /proc rw,nosuid - proc proc rw\n"
        "damaged\n"
        "28 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n"
        "95 28 7:11 / /mnt/a\\040b rw,relatime shared:7 - ext4 /dev/loop11 rw\n"
        "96 28 7:11 /sub /mnt/c rw,relatime shared:7 - ext4 /dev/loop11 rw\n");
    return mount_point_in(mountinfo, ::makedev(major, minor));
}

TEST(HostUse, MountIsFoundByTheNumberOfItsDevice) {
    EXPECT_EQ(place_of(254, 1), "/");
    EXPECT_EQ(place_of(7, 11), "/mnt/a\\040b");
    EXPECT_EQ(place_of(7, 1), "");
    EXPECT_EQ(place_of(54, 1), "");
}

TEST(HostUse, FileIsNobodysDevice) {
    const TemporaryDirectory directory;
    std::ofstream(directory.file("disk")) << "x";
    EXPECT_EQ(host_use_of(DiskFile(directory.file("disk"), {})), "");
}

}  // namespace
}  // namespace nbdm
