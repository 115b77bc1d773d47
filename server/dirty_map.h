// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "iothread/range.h"

namespace nbdm {

// A stretch of blocks that are alike.
struct DirtyExtent {
    Range range;
    bool dirty = false;
};

// One bit per block of a disk: set when the block was written to.
//
// Threads: every method, any thread, any time.
// Order:   a writer marks after its data reached the disk and before its client is answered; the
//          other way round loses writes (ARCHITECTURE.md, "The life of a write").
// Memory:  one bit per block, allocated once: 2 MiB for 1 TiB in 64 KiB blocks.
class DirtyMap {
  public:
    // `block_bytes` is a power of two; the last block of the disk may be shorter.
    DirtyMap(std::uint64_t disk_bytes, std::uint32_t block_bytes);

    // Marks each block that `range` touches, whole or in part. `range` lies inside the disk.
    void mark(Range range) noexcept;

    // Moves the marks of the blocks that `range` touches into `other`, on top of what is marked
    // there, but for blocks that are marked in `spared`; all three are of the same shape. A mark
    // that races with it is in `other` or still here, never in neither; one that was there before
    // the call is in `other`. Returns how many bytes of them were not marked in `other` before.
    std::uint64_t move_into(DirtyMap& other, Range range,
                            const DirtyMap* spared = nullptr) noexcept;

    void clear() noexcept;

    // A moment's count, the last block as short as it is.
    [[nodiscard]] std::uint64_t count_bytes() const noexcept;
    // Of this map and another one of its shape: what is dirty in one or both.
    [[nodiscard]] std::uint64_t count_bytes_with(const DirtyMap& other) const noexcept;

    // The longest extent of one kind at the start of `within` (not empty), in whole blocks but cut
    // to `within`.
    [[nodiscard]] DirtyExtent next_extent(Range within) const noexcept;

    // The marks as they are kept elsewhere: bit i of word w is block 64 * w + i. A moment's look.
    [[nodiscard]] std::vector<std::uint64_t> words() const;
    // Marks what is set in `words`, which are of a map of the same shape.
    void mark_words(std::span<const std::uint64_t> words) noexcept;
    // How many words a map of this shape has, and which bits of the last one are blocks.
    struct Shape {
        std::uint64_t words = 0;
        std::uint64_t last_word = 0;
    };
    [[nodiscard]] static Shape shape(std::uint64_t disk_bytes, std::uint32_t block_bytes) noexcept;

    [[nodiscard]] std::uint64_t disk_bytes() const noexcept { return disk_bytes_; }
    [[nodiscard]] std::uint32_t block_bytes() const noexcept {
        return std::uint32_t{1} << block_shift_;
    }

  private:
    [[nodiscard]] std::uint64_t block_of(std::uint64_t offset) const noexcept {
        return offset >> block_shift_;
    }

    // Fixed after construction.
    const std::uint64_t disk_bytes_;
    const unsigned block_shift_;
    const std::uint64_t word_count_;

    // Shared (atomic): bit i of word w is block 64 * w + i.
    const std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
};

}  // namespace nbdm
