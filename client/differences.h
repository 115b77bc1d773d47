// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "iothread/range.h"

namespace nbdm {

// Where two disks were found to differ.
//
// Threads: one at a time.
class Differences {
  public:
    // 16 MiB of them.
    static constexpr std::size_t kMaxRanges = std::size_t{1} << 20;

    explicit Differences(std::size_t max_ranges = kMaxRanges) : max_ranges_(max_ranges) {}

    void clear() noexcept;
    void add(Range range);

    struct Found {
        std::vector<Range> ranges;  // in the disk's order; none touches another
        bool all = true;            // or else there were more than are kept
    };
    // None is left here.
    [[nodiscard]] Found take();

  private:
    void join();

    const std::size_t max_ranges_;
    std::vector<Range> ranges_;
    bool all_ = true;
};

}  // namespace nbdm
