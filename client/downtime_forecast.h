// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace nbdm {

// How long writers would have to wait if a mirror were cut over now, from how its last rounds went.
//
// Threads: a plain value.
class DowntimeForecast {
  public:
    using Clock = std::chrono::steady_clock;
    using Downtime = std::chrono::duration<double, std::milli>;

    // No round copies faster than that; nothing: no limit.
    void limit(std::optional<std::uint64_t> bytes_per_s) noexcept {
        limit_bytes_per_s_ = bytes_per_s;
    }
    // A round has copied so many bytes of data.
    void learn(std::uint64_t copied_bytes, Clock::duration copying,
               Clock::duration flushing) noexcept;

    // Of a cutover that would have about so much to copy; nothing: not known yet.
    [[nodiscard]] std::optional<Downtime> expected(std::uint64_t dirty_bytes) const noexcept;
    [[nodiscard]] bool fits(std::uint64_t dirty_bytes, Downtime allowed) const noexcept;
    // 0: not known yet.
    [[nodiscard]] double copy_bytes_per_s() const noexcept;

  private:
    std::optional<std::uint64_t> limit_bytes_per_s_;
    double measured_bytes_per_s_ = 0;
    Clock::duration flushing_{};
};

}  // namespace nbdm
