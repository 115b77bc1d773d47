// SPDX-License-Identifier: Apache-2.0
#include "iothread/disk_place.h"

#include <fcntl.h>
#include <fstream>

#include <sys/stat.h>

namespace nbdm {

namespace {

std::string numbers(unsigned major, unsigned minor) {
    return std::to_string(major) + ":" + std::to_string(minor);
}

std::string place_of(int directory, const char* path) {
    const std::string boot = boot_id();
    struct statx status {};
    if (boot.empty() ||
        ::statx(directory, path, AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &status) != 0) {
        return "";
    }
    if (S_ISBLK(status.stx_mode)) {
        return boot + " device " + numbers(status.stx_rdev_major, status.stx_rdev_minor);
    }
    // A file system that does not tell when a file was made may give its number again.
    if (!S_ISREG(status.stx_mode) || (status.stx_mask & STATX_BTIME) == 0) {
        return "";
    }
    return boot + " file " + numbers(status.stx_dev_major, status.stx_dev_minor) + " " +
           std::to_string(status.stx_ino) + " " + std::to_string(status.stx_btime.tv_sec) + "." +
           std::to_string(status.stx_btime.tv_nsec);
}

}  // namespace

std::string boot_id() {
    std::string id;
    std::ifstream stream("/proc/sys/kernel/random/boot_id");
    std::getline(stream, id);
    return id;
}

std::string place_of(int fd) {
    return place_of(fd, "");
}

std::string place_of(const std::string& path) {
    return place_of(AT_FDCWD, path.c_str());
}

}  // namespace nbdm
