// SPDX-License-Identifier: Apache-2.0
#include "server/disk_identity.h"

#include <array>
#include <fcntl.h>
#include <filesystem>
#include <fstream>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "control/utf8.h"
#include "iothread/check.h"

namespace nbdm {

namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "file ";

std::string first_line_of(const fs::path& file) {
    std::string line;
    std::ifstream stream(file);
    std::getline(stream, line);
    return line;
}

// Device numbers are given out anew at each boot; these are not: of device mapper (LVM), RAID, and
// what the hardware says of itself. A loop device is its file.
std::string storage_of_device(const fs::path& sysfs) {
    const std::string partition = first_line_of(sysfs / "partition");
    if (!partition.empty()) {
        const std::string whole = storage_of_device(sysfs.parent_path());
        return whole.empty() ? "" : whole + " partition " + partition;
    }
    constexpr std::array kSources = {"dm/uuid",     "md/uuid", "loop/backing_file", "wwid",
                                     "device/wwid", "serial",  "device/serial"};
    for (const char* source : kSources) {
        const std::string text = first_line_of(sysfs / source);
        if (!text.empty()) {
            return as_utf8(std::string(source) + " " + text);
        }
    }
    return "";
}

std::int64_t born_at_ns(int fd) noexcept {
    struct statx status {};
    if (::statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &status) != 0 ||
        (status.stx_mask & STATX_BTIME) == 0) {
        return 0;
    }
    return status.stx_btime.tv_sec * 1'000'000'000 + status.stx_btime.tv_nsec;
}

}  // namespace

DiskIdentity DiskIdentity::of(const DiskFile& file) {
    const std::string what = "cannot examine '" + file.path() + "'";
    struct stat status {};
    check_errno(::fstat(file.fd(), &status), what);
    DiskIdentity identity;
    identity.path = as_utf8(fs::absolute(file.path()).lexically_normal());
    if (file.is_block_device()) {
        const std::string number =
            std::to_string(major(status.st_rdev)) + ":" + std::to_string(minor(status.st_rdev));
        std::error_code unknown;
        const fs::path sysfs = fs::canonical("/sys/dev/block/" + number, unknown);
        identity.storage = unknown ? "" : storage_of_device(sysfs);
        return identity;
    }
    struct statfs filesystem {};
    check_errno(::fstatfs(file.fd(), &filesystem), what);
    identity.storage = std::string(kFile) +
                       std::to_string(static_cast<unsigned>(filesystem.f_fsid.__val[0])) + "." +
                       std::to_string(static_cast<unsigned>(filesystem.f_fsid.__val[1])) + " " +
                       std::to_string(status.st_ino);
    identity.born_at_ns = nbdm::born_at_ns(file.fd());
    return identity;
}

bool DiskIdentity::is_same_as(const DiskIdentity& other) const noexcept {
    if (born_at_ns != 0 && other.born_at_ns != 0 && born_at_ns != other.born_at_ns) {
        return false;
    }
    if (!storage.empty() && storage == other.storage) {
        return true;
    }
    // What a file system says of itself may change with the device it is on; what a device says of
    // itself does not.
    const bool is_file = storage.starts_with(kFile) && other.storage.starts_with(kFile);
    const bool may_have_changed = storage.empty() || other.storage.empty() || is_file;
    return may_have_changed && path == other.path;
}

}  // namespace nbdm
