// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "iothread/disk_file.h"
#include "iothread/extent_memory.h"
#include "iothread/range.h"

namespace nbdm {

// XXH3-128 of a block of a disk, its least significant 32 bits first. Blocks of equal digests are
// taken for equal: by chance two that differ have equal ones with a probability of 2^-128. It is no
// protection from one who makes blocks for that purpose, but from one who made them beforehand: the
// seed is drawn anew each time. Source: the xxHash library, version 0.8.
using Digest = std::array<std::uint32_t, 4>;

// A part of a disk whose blocks all have this digest: of each block that a byte of it lies in.
struct DigestRun {
    Range range;
    Digest digest{};

    friend bool operator==(const DigestRun&, const DigestRun&) = default;
};

// The digests of one disk's blocks, made where the disk is. Holes are not read.
//
// Threads: one at a time.
class BlockDigests {
  public:
    // Blocks begin at multiples of this; the last one ends with the disk.
    static constexpr std::uint64_t kBlockBytes = 64 << 10;
    // Of the memory that read() is given: so much is read by one call of the system.
    static constexpr std::size_t kMemoryBytes = 15 * kBlockBytes;
    // The longest range that is read before read() returns.
    static constexpr std::uint64_t kMaxReadBytes = 16 << 20;

    // `fd` is from DiskFile::open_again(), this user's own. Both outlive it.
    BlockDigests(const DiskFile& file, int fd, std::uint64_t seed) noexcept;

    // Digests from the start of `range` (inside the disk, not empty) on, at least one, ascending
    // and without gaps; they may stop short of its end. `memory`: kMemoryBytes that begin at a
    // page. 0, or the errno of a read that failed; `into` is then of no use.
    [[nodiscard]] int read(Range range, std::span<std::byte> memory, std::vector<DigestRun>& into);

    [[nodiscard]] static Digest of(std::span<const std::byte> block, std::uint64_t seed) noexcept;

  private:
    [[nodiscard]] int read_data(Range blocks, std::span<std::byte> memory,
                                std::vector<DigestRun>& into) const;

    const DiskFile& file_;
    const int fd_;
    const std::uint64_t seed_;
    const Digest zero_digest_;  // of a whole block of zeroes
    ExtentMemory extents_;
};

}  // namespace nbdm
