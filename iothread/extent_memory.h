// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

#include "iothread/disk_file.h"
#include "iothread/range.h"

namespace nbdm {

// Tells the extents of a file to one reader, and asks the file system no more often than needed:
// tmpfs looks at every page from the start of a question to the next hole (2.6 ms for 1 GiB,
// measured 2026-11-21; 15 ms on 2026-11-27, when a kernel without preemption let nothing else run
// on that CPU meanwhile), which a reader of small parts would pay again for each of them.
//
// Only data is remembered, and only until DiskFile says that something has become a hole. Reading a
// hole as data is right, if slow; the other way round it is not.
//
// Threads: one at a time.
class ExtentMemory {
  public:
    using Clock = std::chrono::steady_clock;

    // As long as this, a hole that another program has made may go unnoticed.
    static constexpr std::chrono::seconds kDataIsRemembered{10};

    // `fd` is from DiskFile::open_again(), this reader's own. Both outlive it.
    ExtentMemory(const DiskFile& file, int fd) noexcept : file_(file), fd_(fd) {}

    // As DiskFile::next_extent().
    [[nodiscard]] FileExtent next_extent(Range within, Clock::time_point now) noexcept;

  private:
    const DiskFile& file_;
    const int fd_;
    Range data_;
    Clock::time_point asked_at_;
    std::uint64_t holes_made_ = 0;  // before it was asked
};

}  // namespace nbdm
