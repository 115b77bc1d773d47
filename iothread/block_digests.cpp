// SPDX-License-Identifier: Apache-2.0
#include "iothread/block_digests.h"

#include <algorithm>
#include <xxhash.h>

namespace nbdm {

namespace {

Digest digest_of_zeroes(std::uint64_t seed) noexcept {
    static constexpr std::array<std::byte, BlockDigests::kBlockBytes> kZeroes{};
    return BlockDigests::of(kZeroes, seed);
}

}  // namespace

Digest BlockDigests::of(std::span<const std::byte> block, std::uint64_t seed) noexcept {
    const XXH128_hash_t hash = ::XXH3_128bits_withSeed(block.data(), block.size(), seed);
    const auto half = [](std::uint64_t value, unsigned shift) {
        return static_cast<std::uint32_t>(value >> shift);
    };
    return {half(hash.low64, 0), half(hash.low64, 32), half(hash.high64, 0), half(hash.high64, 32)};
}

BlockDigests::BlockDigests(const DiskFile& file, int fd, std::uint64_t seed) noexcept
    : file_(file), fd_(fd), seed_(seed), zero_digest_(digest_of_zeroes(seed)), extents_(file, fd) {}

int BlockDigests::read(Range range, std::span<std::byte> memory, std::vector<DigestRun>& into) {
    into.clear();
    const Range blocks =
        Range::from_to(align_down(range.offset, kBlockBytes),
                       std::min(align_up(range.end(), kBlockBytes), file_.size_bytes()));
    std::uint64_t read_bytes = 0;
    for (Range left = blocks; !left.empty() && read_bytes < kMaxReadBytes;
         left = Range::from_to(into.back().range.end(), blocks.end())) {
        const FileExtent extent = extents_.next_extent(left, ExtentMemory::Clock::now());
        const Range zeroes = extent.hole ? whole_units(extent.range, kBlockBytes) : Range{};
        if (!zeroes.empty()) {
            into.push_back({zeroes, zero_digest_});
            continue;
        }
        // The block in which a hole begins or ends is read as data.
        const Range data =
            Range::from_to(left.offset,
                           std::min(align_up(extent.range.end(), kBlockBytes), blocks.end()))
                .first(kMemoryBytes);
        if (const int error = read_data(data, memory, into); error != 0) {
            return error;
        }
        read_bytes += data.length;
    }
    // What was asked for may begin and end inside a block.
    DigestRun& first = into.front();
    first.range = Range::from_to(range.offset, first.range.end());
    DigestRun& last = into.back();
    last.range = Range::from_to(last.range.offset, std::min(last.range.end(), range.end()));
    return 0;
}

int BlockDigests::read_data(Range blocks, std::span<std::byte> memory,
                            std::vector<DigestRun>& into) const {
    if (const int error = file_.read_blocks(fd_, blocks, memory.data()); error != 0) {
        return error;
    }
    for (Range left = blocks; !left.empty(); left = left.after(kBlockBytes)) {
        const Range block = left.first(kBlockBytes);
        const auto data = memory.subspan(block.offset - blocks.offset, block.length);
        into.push_back({block, of(data, seed_)});
    }
    return 0;
}

}  // namespace nbdm
