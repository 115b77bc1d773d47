// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "iothread/range.h"
#include "iothread/unique_fd.h"

namespace nbdm {

enum class CacheMode {
    automatic,  // `writeback`: right for every file system and every alignment
    direct,     // O_DIRECT: the page cache is not used; requests go through the ring
    writeback,  // the page cache; durable after a flush
};

// A stretch of a file that is stored alike.
struct FileExtent {
    Range range;
    bool hole = false;  // nothing is stored; reads as zero
};

// An opened raw disk image or block device. Knows how it can be read, written and zeroed; the
// work itself is done by DiskOperation.
//
// Threads: any, all methods; what is learned at run time (which zeroing calls the file system
//          refuses) is atomic.
// Fails:   the constructor throws std::system_error that names the path; with EBUSY when the image
//          is in use in a way that excludes this one (image_lock.h).
class DiskFile {
  public:
    struct Options {
        bool writable = false;
        CacheMode cache = CacheMode::automatic;
        // Read it although somebody may write to it.
        bool others_may_write = false;
        // Create the file, sparse and of this size, when it is missing. An existing file that has
        // another size is left as it is.
        std::optional<std::uint64_t> create_bytes;
    };

    DiskFile(std::string path, const Options& options);

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    // place_of() it.
    [[nodiscard]] const std::string& place() const noexcept { return place_; }
    // As it was opened, or as it was last told by grow_to().
    [[nodiscard]] std::uint64_t size_bytes() const noexcept {
        return size_bytes_.load(std::memory_order_acquire);
    }
    // What the storage says now; throws std::system_error.
    [[nodiscard]] std::uint64_t stored_bytes() const;
    // `bytes` are stored by now, more than before.
    void grow_to(std::uint64_t bytes) noexcept {
        size_bytes_.store(bytes, std::memory_order_release);
    }
    [[nodiscard]] bool writable() const noexcept { return writable_; }
    // It was missing and was made here: it reads as zero, and its directory is not synced.
    [[nodiscard]] bool created() const noexcept { return created_; }
    [[nodiscard]] bool direct() const noexcept { return direct_; }
    [[nodiscard]] bool is_block_device() const noexcept { return is_block_device_; }
    // Offsets and lengths of reads and writes are multiples of this: the logical sector when
    // direct(), else 1.
    [[nodiscard]] std::uint32_t request_alignment() const noexcept { return request_alignment_; }
    // The unit of zeroing and trimming without writing: the sector of a block device, 1 for files.
    [[nodiscard]] std::uint32_t zeroing_alignment() const noexcept { return zeroing_alignment_; }
    // A size at which requests are efficient, as the storage says (a RAID's stripe, a file system's
    // block): a power of two from 4 KiB to 32 MiB.
    [[nodiscard]] std::uint32_t preferred_bytes() const noexcept { return preferred_bytes_; }

    // A plain read or write never waits for a device (tmpfs).
    [[nodiscard]] bool memory_backed() const noexcept { return memory_backed_; }

    // The same file opened once more, in the same way, but a block device only for reading: with an
    // offset of its own for next_extent(), since lseek moves the offset of the open file and takes
    // a lock for it, with a memory of its own of lost write-back, and without the image locks.
    [[nodiscard]] UniqueFd open_again() const;
    // The extent at the start of `within` (not empty), no longer than `within`. A file system that
    // cannot tell reports data, which is always correct. `fd` is from open_again(), used by
    // one thread.
    [[nodiscard]] FileExtent next_extent(int fd, Range within) const noexcept;
    // What the file system says of it at this moment.
    struct State {
        bool shorter = false;  // than the disk it was opened as
        bool may_have_holes = false;
    };
    [[nodiscard]] State state() const noexcept;
    // Of the file system of a file; nothing for a device.
    struct Space {
        std::uint64_t allocated_bytes = 0;  // by this file
        std::uint64_t room_bytes = 0;       // that this file may have allocated at most
    };
    [[nodiscard]] std::optional<Space> space() const noexcept;
    // Whether all of `range` is in memory, so that reading it waits for no device. False where that
    // cannot be known. A moment later it may have changed.
    [[nodiscard]] bool is_resident(Range range) const noexcept;

    // Writes (or, with from == nullptr, zeroes) any range of a direct() file: whole blocks go out
    // as they are, the blocks at the ends are read, changed and written back. Blocking. The caller
    // makes sure that nothing else writes to the file meanwhile, since a concurrent write to the
    // rest of such a block would be undone.
    struct Written {
        int error = 0;                 // or errno
        bool lost_write_back = false;  // what failed is writing the page cache out
    };
    [[nodiscard]] Written write_unaligned(Range range, const std::byte* from) const;
    // Reads `range`, which begins at a multiple of request_alignment() and ends at one or with the
    // disk, through `fd` of open_again(). `into` is as aligned, and has room for a multiple of it.
    // Blocking; 0 or errno.
    [[nodiscard]] int read_blocks(int fd, Range range, std::byte* into) const;
    // Reads any range of a direct() file. Blocking; 0 or errno.
    [[nodiscard]] int read_unaligned(Range range, std::byte* into) const;

    // Held around long writes to the page cache; not held, and not needed, where direct(). Threads
    // that write there to one file wait for each other in the kernel, on the inode's lock, and burn
    // a CPU while they do; here they sleep (docs/performance.md).
    [[nodiscard]] std::unique_lock<std::mutex> take_write_turn();

    // How often something was made a hole through this object: what was known to be data before may
    // be none. Counted once it is one.
    [[nodiscard]] std::uint64_t holes_made() const noexcept {
        return holes_made_.load(std::memory_order_acquire);
    }
    void note_hole() noexcept { holes_made_.fetch_add(1, std::memory_order_release); }

    // Whether the calls still look as if they work here; a refusal is remembered.
    std::atomic<bool> can_punch{true};
    std::atomic<bool> can_zero_range{true};
    std::atomic<bool> can_read_nowait{true};

  private:
    void open(const Options& options);
    void learn_storage();
    void lock(bool others_may_write) const;
    [[nodiscard]] UniqueFd open_buffered() const;

    const std::string path_;
    const bool writable_;
    UniqueFd fd_;
    std::string place_;
    bool created_ = false;
    bool direct_ = false;
    bool is_block_device_ = false;
    bool memory_backed_ = false;
    std::atomic<std::uint64_t> size_bytes_{0};
    std::atomic<std::uint64_t> holes_made_{0};
    std::uint32_t request_alignment_ = 1;
    std::uint32_t zeroing_alignment_ = 1;
    std::uint32_t preferred_bytes_ = 4096;
    std::mutex write_turn_;  // guards no data: puts long writes to the page cache in a row
};

}  // namespace nbdm
