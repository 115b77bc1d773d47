// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace nbdm {

// Whether it is worth while to connect again. Connections that soon go, or many in succession, and
// have made nothing durable are lost all the time: all is sent again with each of them.
//
// Threads: one at a time.
class LostConnections {
  public:
    using Clock = std::chrono::steady_clock;
    // In succession, without anything that has become durable.
    static constexpr int kMaxFruitless = 10;
    // Between attempts: doubled after each failure.
    static constexpr std::chrono::milliseconds kMinDelay{200};
    static constexpr std::chrono::milliseconds kMaxDelay{10'000};

    explicit LostConnections(std::chrono::seconds limit) noexcept : limit_(limit) {}

    // `durable_steps` grows with what becomes durable.
    void lost(std::uint64_t durable_steps, Clock::time_point now) noexcept;
    void connected(Clock::time_point now) noexcept { connected_at_ = now; }
    // Whatever was to be copied is durable.
    void round_ended() noexcept;

    // "given up after 30 s", if an attempt at that time is none any more.
    [[nodiscard]] std::optional<std::string> given_up(Clock::time_point attempt) const;

  private:
    const std::chrono::seconds limit_;
    std::optional<Clock::time_point> since_;
    Clock::time_point connected_at_;
    std::uint64_t durable_steps_ = 0;
    int fruitless_ = 0;
};

}  // namespace nbdm
