// SPDX-License-Identifier: Apache-2.0
#include "control/disk_identity.h"

#include <fcntl.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "iothread/disk_file.h"
#include "tests/unit/test_support.h"

namespace nbdm {

namespace {

const DiskIdentity kFile{.path = "/a", .storage = "file 1.2 34", .born_at_ns = 5};
const DiskIdentity kDevice{.path = "/dev/vg/a", .storage = "dm/uuid LVM-x", .born_at_ns = 0};
const DiskIdentity kPlainDevice{.path = "/dev/vda", .storage = "", .born_at_ns = 0};

}  // namespace

TEST(DiskIdentity, FileIsKnownUnderAnotherName) {
    DiskIdentity renamed = kFile;
    renamed.path = "/b";
    EXPECT_TRUE(kFile.is_same_as(renamed));
}

TEST(DiskIdentity, FileIsKnownByItsPathWhereItsFileSystemHasAnotherNumberNow) {
    DiskIdentity rebooted = kFile;
    rebooted.storage = "file 9.9 34";
    EXPECT_TRUE(kFile.is_same_as(rebooted));
    rebooted.path = "/b";
    EXPECT_FALSE(kFile.is_same_as(rebooted));
}

TEST(DiskIdentity, NewFileAtAnOldPlaceOrWithAnOldNumberIsAnotherDisk) {
    DiskIdentity made_anew = kFile;
    made_anew.born_at_ns = 6;
    EXPECT_FALSE(kFile.is_same_as(made_anew));
}

TEST(DiskIdentity, DeviceIsKnownByWhatItSaysOfItselfAndNotByItsName) {
    DiskIdentity renamed = kDevice;
    renamed.path = "/dev/dm-7";
    EXPECT_TRUE(kDevice.is_same_as(renamed));
    DiskIdentity made_anew = kDevice;
    made_anew.storage = "dm/uuid LVM-y";
    EXPECT_FALSE(kDevice.is_same_as(made_anew));
}

TEST(DiskIdentity, DeviceThatSaysNothingIsKnownByItsPath) {
    EXPECT_TRUE(kPlainDevice.is_same_as(kPlainDevice));
    DiskIdentity other = kPlainDevice;
    other.path = "/dev/vdb";
    EXPECT_FALSE(kPlainDevice.is_same_as(other));
}

TEST(DiskIdentity, FileKeepsItThroughRenameAndWriteAndLink) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("disk");
    const DiskFile file(path, {.writable = true, .create_bytes = 8192});
    const DiskIdentity before = DiskIdentity::of(file.fd(), file.path());
    EXPECT_NE(before.storage, "");
    ASSERT_EQ(::pwrite(file.fd(), "x", 1, 0), 1);
    ASSERT_EQ(::rename(path.c_str(), directory.file("renamed").c_str()), 0);
    EXPECT_TRUE(before.is_same_as(DiskIdentity::of(file.fd(), file.path())));
}

TEST(DiskIdentity, FingerprintOfAFileGoesByItsNumberAndWhenItWasMade) {
    DiskIdentity rebooted = kFile;
    rebooted.storage = "file 9.9 34";
    rebooted.path = "/b";
    EXPECT_EQ(kFile.fingerprint(), rebooted.fingerprint());
    DiskIdentity made_anew = kFile;
    made_anew.born_at_ns = 6;
    EXPECT_NE(kFile.fingerprint(), made_anew.fingerprint());
    DiskIdentity other = kFile;
    other.storage = "file 1.2 35";
    EXPECT_NE(kFile.fingerprint(), other.fingerprint());
    EXPECT_NE(kDevice.fingerprint(), kPlainDevice.fingerprint());
}

}  // namespace nbdm
