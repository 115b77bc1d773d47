// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>

#include "server/socket_stream.h"

namespace nbdm {

// How long a client may hold something up: half a request keeps a slot and memory, and so do
// answers that it does not take. Between requests it may be silent for ever.
//
// Threads: one at a time.
class Patience {
  public:
    using Clock = std::chrono::steady_clock;

    // For a client that has memory for which others wait: some retransmissions of TCP long, and
    // a third of what a guest's SCSI disk waits for an answer (30 s in Linux).
    static constexpr std::chrono::seconds kShortageLimit{10};

    explicit Patience(Clock::duration request_timeout) noexcept
        : request_timeout_(request_timeout) {}

    // Under shortage it has to send or to take this much in that time, not a byte now and then.
    static constexpr std::uint64_t kProgressBytes = 64 << 10;

    // It sent something, or nothing was expected of it.
    void received(Clock::time_point now) noexcept { received_at_ = now; }

    // The server itself stood still, for its disk, from then on until now: that is not the client's
    // time.
    void excuse(Clock::time_point since, Clock::time_point now) noexcept;

    struct Seen {
        bool in_request = false;           // it has sent a part of a request
        bool receiving = true;             // more is being waited for
        std::uint64_t received_bytes = 0;  // since the connection began
        bool answers_waiting = false;      // its socket takes no more of them
        std::uint64_t untaken_bytes = 0;   // that are in the socket then
        bool others_wait = false;          // for memory that it has
    };
    void look(Seen seen, Clock::time_point now) noexcept;

    // As of the last look: when it has to have moved; nothing when it holds up nothing.
    [[nodiscard]] std::optional<Clock::time_point> deadline() const noexcept { return deadline_; }
    // What it is disconnected for then.
    [[nodiscard]] DisconnectReason reason() const noexcept { return reason_; }

  private:
    // More than any socket holds: whatever is left of the answers next is progress.
    static constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();

    const Clock::duration request_timeout_;
    Clock::time_point received_at_;
    // Progress of what is received: when, and how much it was then.
    Clock::time_point progress_at_;
    std::uint64_t progress_bytes_ = 0;
    // Progress of what is sent, and what was left of it then.
    Clock::time_point taken_at_;
    std::uint64_t untaken_bytes_ = kNone;
    std::optional<Clock::time_point> wanted_since_;  // others wait, since then
    std::optional<Clock::time_point> deadline_;
    DisconnectReason reason_{};
};

}  // namespace nbdm
