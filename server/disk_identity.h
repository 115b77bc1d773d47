// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "iothread/disk_file.h"

namespace nbdm {

// What a disk is known by, also after a reboot and under another name.
//
// Threads: any, each with its own.
struct DiskIdentity {
    std::string path;     // absolute, as it was opened; links in it are not followed
    std::string storage;  // of the device or file behind it; empty where nothing lasting is known
    std::int64_t born_at_ns = 0;  // when the file was made; 0 where it is not known

    // Throws std::system_error that names the path.
    [[nodiscard]] static DiskIdentity of(const DiskFile& file);

    // By its storage or, where that is not known for certain, by its path. A new file at the place
    // or with the number of a deleted one is another disk.
    [[nodiscard]] bool is_same_as(const DiskIdentity& other) const noexcept;
};

}  // namespace nbdm
