// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "server/nbd_wire.h"
#include "server/receiver.h"
#include "server/request.h"

namespace nbdm {

// The payload of one request while it is on its way. A request that will be refused has one too: it
// is dropped, so that the stream stays in step.
//
// Threads: the connection's iothread.
class IncomingPayload {
  public:
    [[nodiscard]] bool expected() const noexcept { return request_ != nullptr; }
    // `bytes`, more than none, come next. They belong in the request's buffer; with a refusal they
    // are dropped.
    void begin(Request& request, std::uint64_t bytes, wire::Error refusal) noexcept;
    // Where the rest of it belongs; empty when it is dropped or none is expected.
    [[nodiscard]] std::span<std::byte> room() const noexcept;
    // Takes what has been received of it. False: more is to come.
    [[nodiscard]] bool take(Receiver& receiver) noexcept;

    // Why the request is to be refused, if it is; or else all of its payload.
    [[nodiscard]] wire::Error refusal() const noexcept { return refusal_; }
    [[nodiscard]] std::span<const std::byte> data() const noexcept;
    // Whose it is, for the last time: none is expected any more. Null when none was.
    [[nodiscard]] Request* finish() noexcept { return std::exchange(request_, nullptr); }

  private:
    Request* request_ = nullptr;
    std::uint64_t bytes_ = 0;
    std::uint64_t left_ = 0;
    wire::Error refusal_ = wire::Error::none;
};

}  // namespace nbdm
