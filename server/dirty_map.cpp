// SPDX-License-Identifier: Apache-2.0
#include "server/dirty_map.h"

#include <bit>
#include <cassert>

namespace nbdm {

namespace {

constexpr unsigned kWordBits = 64;

// The bits of blocks `first` to `last` (inclusive, both in one word).
constexpr std::uint64_t bits(std::uint64_t first, std::uint64_t last) noexcept {
    const std::uint64_t up_to_last = ~std::uint64_t{0} >> (kWordBits - 1 - last % kWordBits);
    return up_to_last & (~std::uint64_t{0} << (first % kWordBits));
}

}  // namespace

DirtyMap::DirtyMap(std::uint64_t disk_bytes, std::uint32_t block_bytes)
    : disk_bytes_(disk_bytes),
      block_shift_(static_cast<unsigned>(std::countr_zero(block_bytes))),
      word_count_(shape(disk_bytes, block_bytes).words),
      words_(std::make_unique<std::atomic<std::uint64_t>[]>(word_count_)) {
    assert(std::has_single_bit(block_bytes));
}

DirtyMap::Shape DirtyMap::shape(std::uint64_t disk_bytes, std::uint32_t block_bytes) noexcept {
    const std::uint64_t blocks = align_up(disk_bytes, std::uint64_t{block_bytes}) / block_bytes;
    return {.words = align_up(blocks, std::uint64_t{kWordBits}) / kWordBits,
            .last_word = blocks == 0 ? 0 : bits(0, (blocks - 1) % kWordBits)};
}

void DirtyMap::mark(Range range) noexcept {
    if (range.empty()) {
        return;
    }
    assert(range.end() <= disk_bytes_);
    const std::uint64_t last = block_of(range.end() - 1);
    std::uint64_t first = block_of(range.offset);
    while (first <= last) {
        const std::uint64_t word = first / kWordBits;
        const std::uint64_t end_of_word = word * kWordBits + kWordBits - 1;
        // release: whoever takes the mark also sees the data that was written before it. The mark
        // is made even when the bit is set already: reading first would order nothing.
        words_[word].fetch_or(bits(first, std::min(last, end_of_word)), std::memory_order_release);
        first = end_of_word + 1;
    }
}

std::uint64_t DirtyMap::move_into(DirtyMap& other, Range range, const DirtyMap* spared) noexcept {
    assert(other.word_count_ == word_count_ && other.block_shift_ == block_shift_);
    assert(spared == nullptr ||
           (spared->word_count_ == word_count_ && spared->block_shift_ == block_shift_));
    if (range.empty()) {
        return 0;
    }
    assert(range.end() <= disk_bytes_);
    std::uint64_t blocks = 0;
    bool with_tail = false;
    const std::uint64_t tail = block_of(disk_bytes_);  // not whole, if there is one
    const std::uint64_t last = block_of(range.end() - 1);
    for (std::uint64_t first = block_of(range.offset); first <= last;) {
        const std::uint64_t word = first / kWordBits;
        const std::uint64_t end_of_word = word * kWordBits + kWordBits - 1;
        std::uint64_t mask = bits(first, std::min(last, end_of_word));
        if (spared != nullptr) {
            mask &= ~spared->words_[word].load(std::memory_order_relaxed);
        }
        first = end_of_word + 1;
        // Most words are clear: a plain look avoids writing to a cache line that writers use. A
        // mark that comes right after the look stays here.
        if ((words_[word].load(std::memory_order_relaxed) & mask) == 0) {
            continue;
        }
        const std::uint64_t taken = words_[word].fetch_and(~mask, std::memory_order_acq_rel) & mask;
        const std::uint64_t before = other.words_[word].fetch_or(taken, std::memory_order_release);
        blocks += static_cast<std::uint64_t>(std::popcount(taken & ~before));
        with_tail =
            with_tail || (word == tail / kWordBits && (taken & ~before & bits(tail, tail)) != 0);
    }
    const std::uint64_t missing = align_up(disk_bytes_, block_bytes()) - disk_bytes_;
    return (blocks << block_shift_) - (with_tail ? missing : 0);
}

void DirtyMap::clear() noexcept {
    for (std::uint64_t word = 0; word < word_count_; ++word) {
        words_[word].store(0, std::memory_order_release);
    }
}

std::uint64_t DirtyMap::count_bytes() const noexcept {
    return count_bytes_with(*this);
}

std::uint64_t DirtyMap::count_bytes_with(const DirtyMap& other) const noexcept {
    // Each word is looked at once: marks may come meanwhile.
    std::uint64_t blocks = 0;
    std::uint64_t last_word = 0;
    for (std::uint64_t word = 0; word < word_count_; ++word) {
        last_word = words_[word].load(std::memory_order_relaxed) |
                    other.words_[word].load(std::memory_order_relaxed);
        blocks += static_cast<std::uint64_t>(std::popcount(last_word));
    }
    const std::uint64_t bytes = blocks << block_shift_;
    const std::uint64_t missing = align_up(disk_bytes_, block_bytes()) - disk_bytes_;
    const std::uint64_t tail = block_of(disk_bytes_);
    const bool tail_dirty = missing > 0 && (last_word & bits(tail, tail)) != 0;
    return tail_dirty ? bytes - missing : bytes;
}

std::vector<std::uint64_t> DirtyMap::words() const {
    std::vector<std::uint64_t> result(word_count_);
    for (std::uint64_t word = 0; word < word_count_; ++word) {
        result[word] = words_[word].load(std::memory_order_acquire);
    }
    return result;
}

void DirtyMap::mark_words(std::span<const std::uint64_t> words) noexcept {
    assert(words.size() == word_count_);
    for (std::uint64_t word = 0; word < word_count_; ++word) {
        if (words[word] != 0) {
            words_[word].fetch_or(words[word], std::memory_order_release);
        }
    }
}

DirtyExtent DirtyMap::next_extent(Range within) const noexcept {
    assert(!within.empty() && within.end() <= disk_bytes_);
    const std::uint64_t first = block_of(within.offset);
    const std::uint64_t last = block_of(within.end() - 1);
    bool dirty = false;
    std::uint64_t block = first;
    while (block <= last) {
        std::uint64_t value = words_[block / kWordBits].load(std::memory_order_acquire);
        if (block == first) {
            dirty = (value & bits(block, block)) != 0;
        }
        // Bits that differ from the extent's kind, from `block` on.
        value = (dirty ? ~value : value) >> (block % kWordBits);
        if (value != 0) {
            block += static_cast<std::uint64_t>(std::countr_zero(value));
            break;
        }
        block += kWordBits - block % kWordBits;
    }
    const std::uint64_t end = block > last ? within.end() : block << block_shift_;
    return {Range::from_to(within.offset, std::min(end, within.end())), dirty};
}

}  // namespace nbdm
