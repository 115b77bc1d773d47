// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace nbdm {

// A part of a disk: where it begins and how long it is, both in bytes. The one place with
// arithmetic that could overflow: a Range always has an end() that fits in 64 bits.
//
// Threads: a plain value.
struct Range {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;

    [[nodiscard]] constexpr std::uint64_t end() const noexcept { return offset + length; }
    [[nodiscard]] constexpr bool empty() const noexcept { return length == 0; }

    // Whether offset and length (as a peer sent them) lie inside a disk of `disk_bytes`.
    [[nodiscard]] static constexpr bool fits(std::uint64_t offset, std::uint64_t length,
                                             std::uint64_t disk_bytes) noexcept {
        return offset <= disk_bytes && length <= disk_bytes - offset;
    }

    [[nodiscard]] static constexpr Range from_to(std::uint64_t begin, std::uint64_t end) noexcept {
        return {begin, end > begin ? end - begin : 0};
    }

    // The first `length` bytes, or all of it when it is shorter.
    [[nodiscard]] constexpr Range first(std::uint64_t bytes) const noexcept {
        return {offset, std::min(length, bytes)};
    }

    // What is left behind the first `bytes`; empty when there is nothing.
    [[nodiscard]] constexpr Range after(std::uint64_t bytes) const noexcept {
        const std::uint64_t skipped = std::min(length, bytes);
        return {offset + skipped, length - skipped};
    }

    friend constexpr bool operator==(const Range&, const Range&) = default;
};

// `unit` is a power of two in all.
[[nodiscard]] constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t unit) noexcept {
    return value & ~(unit - 1);
}
// `value` is at most 2^64 - unit.
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t unit) noexcept {
    return align_down(value + unit - 1, unit);
}
[[nodiscard]] constexpr bool is_aligned(std::uint64_t value, std::uint64_t unit) noexcept {
    return (value & (unit - 1)) == 0;
}
// The whole units in `range`; empty, at its end, when there is none.
[[nodiscard]] constexpr Range whole_units(Range range, std::uint64_t unit) noexcept {
    const std::uint64_t begin = std::min(align_up(range.offset, unit), range.end());
    return {begin, std::max(align_down(range.end(), unit), begin) - begin};
}

}  // namespace nbdm
