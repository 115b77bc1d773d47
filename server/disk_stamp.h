// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "iothread/disk_file.h"

namespace nbdm {

// What changes with every write to a disk, whoever makes it. There is one of files on file systems
// whose times can be relied on, for as long as the machine runs: after a crash of it, data of a
// write may be stored and its time may not. There is none of a block device, whose counters do not
// know what is written to the storage below it or from another host.
//
// Threads: any, each with its own.
struct DiskStamp {
    std::string boot_id;
    std::uint64_t inode = 0;
    std::uint64_t size_bytes = 0;
    std::int64_t modified_ns = 0;
    std::int64_t changed_ns = 0;

    // Throws std::runtime_error with the reason when the disk has none.
    [[nodiscard]] static DiskStamp of(const DiskFile& file);
    // The same, and whatever is written from now on has another one: waits until the clock of the
    // file system has gone on since the last write, some milliseconds.
    [[nodiscard]] static DiskStamp settled(const DiskFile& file);

    // How a disk that had `before` differs by now; empty when nothing has written to it.
    [[nodiscard]] std::string difference_from(const DiskStamp& before) const;
};

}  // namespace nbdm
