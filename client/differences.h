// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "iothread/range.h"

namespace nbdm {

// Puts ranges in the disk's order, those that touch as one.
void join(std::vector<Range>& ranges);

// "bytes 4096-8191 (4.0 KiB) differ", a line for each of as many as a message names.
[[nodiscard]] std::string describe_first(const std::vector<Range>& differences);

// Where two disks were found to differ.
//
// Threads: one at a time.
class Differences {
  public:
    // 16 MiB of them.
    static constexpr std::size_t kMaxRanges = std::size_t{1} << 20;

    static constexpr std::uint64_t kNoEnd = UINT64_MAX;

    explicit Differences(std::size_t max_ranges = kMaxRanges) : max_ranges_(max_ranges) {}

    void clear() noexcept;
    void add(Range range);

    struct Found {
        std::vector<Range> ranges;  // in the disk's order; none touches another
        // Of what begins from there on nothing is known: there were more than are kept.
        std::uint64_t complete_to = kNoEnd;
    };
    // None is left here.
    [[nodiscard]] Found take();

  private:
    const std::size_t max_ranges_;
    std::vector<Range> ranges_;
    std::uint64_t complete_to_ = kNoEnd;
};

}  // namespace nbdm
