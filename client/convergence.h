// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace nbdm {

// Decides by how much the source's writers are slowed down, so that a mirror that copies more
// slowly than they write gets ready all the same: by no more than is needed, growing gradually.
//
// Threads: one at a time.
class Convergence {
  public:
    using Delay = std::chrono::microseconds;

    // Of one write.
    static constexpr Delay kMaxDelay{50'000};
    // Between two looks.
    static constexpr std::chrono::milliseconds kInterval{500};

    struct Seen {
        bool fits = false;  // what was dirty last could be copied within the downtime
        // It has to go on doing so: a writer that may go faster as soon as it does is too fast by
        // the time of the cutover.
        bool cutover_wanted = false;
        double dirty_bytes_per_s = 0;
        double copy_bytes_per_s = 0;  // 0: not known yet
    };
    // Call once in each interval. Returns the delay from now on; 0: none.
    Delay look(const Seen& seen) noexcept;
    // As of the last look: more becomes dirty than is copied, whatever is done about it.
    [[nodiscard]] bool losing() const noexcept { return losing_; }

    void stop() noexcept { *this = {}; }

  private:
    Delay delay_{0};
    bool losing_ = false;
};

}  // namespace nbdm
