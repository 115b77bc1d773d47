// SPDX-License-Identifier: Apache-2.0
#include "control/disk_identity.h"

#include <array>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <xxhash.h>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "control/utf8.h"
#include "iothread/check.h"

namespace nbdm {

namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "file ";
constexpr const char* kLoop = "loop/backing_file";

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
    constexpr std::array kSources = {"dm/uuid",     "md/uuid", kLoop,          "wwid",
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

DiskIdentity DiskIdentity::of(int fd, const std::string& opened_path) {
    const std::string what = "cannot examine '" + opened_path + "'";
    struct stat status {};
    check_errno(::fstat(fd, &status), what);
    DiskIdentity identity;
    identity.path = as_utf8(fs::absolute(opened_path).lexically_normal());
    if (S_ISBLK(status.st_mode)) {
        const std::string number =
            std::to_string(major(status.st_rdev)) + ":" + std::to_string(minor(status.st_rdev));
        std::error_code unknown;
        const fs::path sysfs = fs::canonical("/sys/dev/block/" + number, unknown);
        identity.storage = unknown ? "" : storage_of_device(sysfs);
        if (identity.storage.empty() || identity.storage.starts_with(kLoop)) {
            identity.appearance = first_line_of("/proc/sys/kernel/random/boot_id") + " " + number +
                                  " " + first_line_of(sysfs / "diskseq");
        }
        return identity;
    }
    struct statfs filesystem {};
    check_errno(::fstatfs(fd, &filesystem), what);
    identity.storage = std::string(kFile) +
                       std::to_string(static_cast<unsigned>(filesystem.f_fsid.__val[0])) + "." +
                       std::to_string(static_cast<unsigned>(filesystem.f_fsid.__val[1])) + " " +
                       std::to_string(status.st_ino);
    identity.born_at_ns = nbdm::born_at_ns(fd);
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

std::uint32_t DiskIdentity::fingerprint() const {
    const std::string known_by = (storage.empty() ? path : storage) + appearance;
    // The file's number without that of its file system, which may change.
    const bool number_is_enough = born_at_ns != 0;
    const std::size_t begin = number_is_enough ? known_by.rfind(' ') + 1 : 0;
    return XXH32(known_by.data() + begin, known_by.size() - begin,
                 static_cast<XXH32_hash_t>(born_at_ns ^ (born_at_ns >> 32)));
}

}  // namespace nbdm
