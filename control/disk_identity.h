// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace nbdm {

// What a disk is known by, also after a reboot and under another name.
//
// Threads: any, each with its own.
struct DiskIdentity {
    std::string path;     // absolute, as it was opened; links in it are not followed
    std::string storage;  // of the device or file behind it; empty where nothing lasting is known
    std::int64_t born_at_ns = 0;  // when the file was made; 0 where it is not known
    // Of a device that says nothing lasting of itself: one that is made anew under its name, or
    // after a boot, has another. Not recorded.
    std::string appearance = {};

    // Of an opened file or block device. Throws std::system_error that names the path.
    [[nodiscard]] static DiskIdentity of(int fd, const std::string& opened_path);

    // By its storage or, where that is not known for certain, by its path. A new file at the place
    // or with the number of a deleted one is another disk.
    [[nodiscard]] bool is_same_as(const DiskIdentity& other) const noexcept;

    // Of two disks it differs, but for one case in four thousand million, and for files whose file
    // system does not tell when they were made. Of one disk it may differ, too: where that is so
    // and its file system has another number by now, and of a device that says nothing lasting of
    // itself, once it has been away.
    [[nodiscard]] std::uint32_t fingerprint() const;
};

}  // namespace nbdm
