// SPDX-License-Identifier: Apache-2.0
#include "server/host_use.h"

#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <sstream>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "iothread/unique_fd.h"

namespace nbdm {

namespace {

// The kernel lets one party at a time have a block device for itself: mounts, swap, volume managers
// and RAID ask for that, of the partitions too. Opened only to read, which udev does not look at,
// and closed at once: QEMU's image locks, not this, keep other programs away.
bool is_claimed(const DiskFile& file) {
    const std::string link = "/proc/self/fd/" + std::to_string(file.fd());
    const UniqueFd exclusive(::open(link.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
    return !exclusive.valid() && errno == EBUSY;
}

}  // namespace

std::string mount_point_in(std::istream& mountinfo, dev_t device) {
    const std::string wanted =
        std::to_string(::major(device)) + ":" + std::to_string(::minor(device));
    for (std::string line; std::getline(mountinfo, line);) {
        std::istringstream fields(line);
        std::string id;
        std::string parent;
        std::string number;
        std::string root;
        std::string point;
        if (fields >> id >> parent >> number >> root >> point && number == wanted) {
            return point;
        }
    }
    return {};
}

std::string host_use_of(const DiskFile& file) {
    struct stat status {};
    if (!file.is_block_device() || !is_claimed(file) || ::fstat(file.fd(), &status) != 0) {
        return {};
    }
    std::ifstream mountinfo("/proc/self/mountinfo");
    const std::string point = mount_point_in(mountinfo, status.st_rdev);
    return point.empty()
               ? "in use on this host (mounted, swapped to, or part of a volume or a RAID)"
               : "mounted at '" + point + "'";
}

}  // namespace nbdm
