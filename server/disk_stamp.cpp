// SPDX-License-Identifier: Apache-2.0
#include "server/disk_stamp.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <poll.h>
#include <stdexcept>

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "iothread/check.h"
#include "iothread/disk_place.h"

namespace nbdm {

namespace {

// Those that note the time of every write, also through a mapping of the file, and are written to
// by this host alone. tmpfs, which may also be below an overlay, does not see the second write to a
// mapped page; of network file systems another host's writes may show late.
constexpr std::array<std::uint32_t, 4> kFileSystems = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,
                                                       BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC};

// File systems take their times from a clock that ticks 100 to 1000 times a second.
constexpr int kTickMs = 1;
constexpr int kMaxTicks = 100;

constexpr std::int64_t kNsPerS = 1'000'000'000;

std::int64_t to_ns(const timespec& time) noexcept {
    return time.tv_sec * kNsPerS + time.tv_nsec;
}

std::int64_t file_system_now_ns() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return to_ns(now);
}

std::string known_boot_id() {
    std::string id = boot_id();
    if (id.empty()) {
        throw std::runtime_error("the kernel does not tell which boot this is");
    }
    return id;
}

}  // namespace

DiskStamp DiskStamp::of(const DiskFile& file) {
    if (file.is_block_device()) {
        throw std::runtime_error(
            "it is a block device, which does not tell whether anything was written to it");
    }
    const std::string what = "cannot examine '" + file.path() + "'";
    struct statfs filesystem {};
    check_errno(::fstatfs(file.fd(), &filesystem), what);
    const auto type = static_cast<std::uint32_t>(filesystem.f_type);
    if (std::find(kFileSystems.begin(), kFileSystems.end(), type) == kFileSystems.end()) {
        throw std::runtime_error(
            "the times of its file system do not tell for certain whether it was written to");
    }
    struct stat status {};
    check_errno(::fstat(file.fd(), &status), what);
    if (status.st_ctim.tv_nsec == 0) {
        throw std::runtime_error("its file system keeps times in whole seconds");
    }
    return {.boot_id = known_boot_id(),
            .inode = status.st_ino,
            .size_bytes = static_cast<std::uint64_t>(status.st_size),
            .modified_ns = to_ns(status.st_mtim),
            .changed_ns = to_ns(status.st_ctim)};
}

DiskStamp DiskStamp::settled(const DiskFile& file) {
    for (int tick = 0; tick < kMaxTicks; ++tick) {
        // Looked at first: no write after the look at the file has an earlier time than this.
        const std::int64_t now = file_system_now_ns();
        DiskStamp stamp = of(file);
        if (now > stamp.changed_ns) {
            return stamp;
        }
        ::poll(nullptr, 0, kTickMs);
    }
    throw std::runtime_error("the clock is behind the time of its last write");
}

std::string DiskStamp::difference_from(const DiskStamp& before) const {
    if (boot_id != before.boot_id) {
        return "the machine was started anew since";
    }
    if (inode != before.inode) {
        return "it is another file by now";
    }
    if (size_bytes != before.size_bytes) {
        return "it has " + std::to_string(size_bytes) + " bytes by now, not " +
               std::to_string(before.size_bytes);
    }
    if (modified_ns != before.modified_ns || changed_ns != before.changed_ns) {
        return "another program has changed it since";
    }
    return "";
}

}  // namespace nbdm
