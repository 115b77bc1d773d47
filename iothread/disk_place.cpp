// SPDX-License-Identifier: Apache-2.0
#include "iothread/disk_place.h"

#include <fstream>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "iothread/check.h"

namespace nbdm {

std::string boot_id() {
    std::string id;
    std::ifstream stream("/proc/sys/kernel/random/boot_id");
    std::getline(stream, id);
    return id;
}

std::string place_of(const DiskFile& file) {
    const std::string boot = boot_id();
    if (boot.empty()) {
        return "";
    }
    struct stat status {};
    check_errno(::fstat(file.fd(), &status), "cannot examine '" + file.path() + "'");
    const auto number = [](dev_t device) {
        return std::to_string(major(device)) + ":" + std::to_string(minor(device));
    };
    return file.is_block_device()
               ? boot + " device " + number(status.st_rdev)
               : boot + " file " + number(status.st_dev) + " " + std::to_string(status.st_ino);
}

}  // namespace nbdm
