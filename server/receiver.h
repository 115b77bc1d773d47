// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include <sys/socket.h>
#include <sys/uio.h>

#include "iothread/ring.h"

namespace nbdm {

// The incoming bytes of one connection. One receive fills first the payload that is being waited
// for, where it belongs, then a stage from which whole requests are parsed: a bulk write costs
// one copy and one call, and one call brings many small requests.
//
// Threads: the ring's. The payload memory given to arm() stays valid while armed().
class Receiver final : public Operation {
  public:
    Receiver(Ring& ring, int fd);

    // What came and is not consumed.
    [[nodiscard]] std::span<const std::byte> staged() const noexcept {
        return {stage_.get() + begin_, end_ - begin_};
    }
    void consume(std::size_t bytes) noexcept;

    // Receives more: into `payload` first (may be empty), the rest into the stage.
    void arm(std::span<std::byte> payload);
    void cancel() { ring_.cancel(*this); }
    [[nodiscard]] bool armed() const noexcept { return pending(); }

    // Bytes that the last receive put into the payload; asked once.
    [[nodiscard]] std::size_t take_payload_count() noexcept;
    // Since the connection began.
    [[nodiscard]] std::uint64_t received_bytes() const noexcept { return received_bytes_; }
    // Nothing more will come: the peer closed, or the socket failed.
    [[nodiscard]] bool ended() const noexcept { return ended_; }
    // Asks the socket whether the peer has closed; what it sent before may still be to be received.
    // Over TCP it is not seen before all that was sent has been taken into the socket's buffer.
    [[nodiscard]] bool peer_closed() const noexcept;
    // Closed in both directions, or reset: it takes no answers any more. Over TCP that is seen once
    // one was sent.
    [[nodiscard]] bool peer_gone() const noexcept;

  private:
    // Room for some dozen small requests with their payloads.
    static constexpr std::size_t kStageBytes = 64 << 10;
    // Behind a large payload: the next header is wanted, but little of the payload that follows
    // it, since what lands in the stage is copied once more.
    static constexpr std::size_t kBehindPayloadBytes = 4 << 10;

    void completed(int result) noexcept override;

    Ring& ring_;
    const int fd_;
    const std::unique_ptr<std::byte[]> stage_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    msghdr message_{};
    std::array<iovec, 2> parts_{};
    std::size_t payload_wanted_ = 0;
    std::size_t payload_count_ = 0;
    std::uint64_t received_bytes_ = 0;
    bool polling_ = false;  // for something to receive, instead of receiving
    bool ended_ = false;
};

}  // namespace nbdm
