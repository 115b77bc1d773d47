// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "server/nbd_wire.h"
#include "server/reply_queue.h"
#include "server/request.h"

namespace nbdm {

// Puts the answers of one connection into its reply queue, in the form that was negotiated. Each
// answer is the last that is heard of its request, which is given back when it was sent.
//
// Threads: the connection's iothread.
class ReplyWriter {
  public:
    ReplyWriter(ReplyQueue& queue, ReplyStyle style) noexcept : queue_(queue), style_(style) {}

    // It succeeded and there is nothing more to say.
    void done(Request& request);
    void error(Request& request, wire::Error error);
    // What was read into its buffer, and its holes.
    void read(Request& request);
    // One context's part of the answer to a block status request, the last of them when `last`.
    // `descriptors` (of the negotiated form) stay where they are, in the request's memory.
    void block_status(Request& request, std::uint32_t context_id,
                      std::span<const wire::BlockDescriptor> descriptors, bool last);
    void block_status(Request& request, std::uint32_t context_id,
                      std::span<const wire::ExtendedBlockDescriptor> descriptors, bool last);

  private:
    void simple(Request& request, wire::Error error, std::span<const std::byte> data);
    template <typename Fields>
    void chunk(Request& request, wire::Chunk type, const Fields& fields,
               std::span<const std::byte> data, bool last);
    void data_chunks(Request& request, Range range, bool last);
    void data_chunk(Request& request, Range range, bool last);
    template <typename Fields>
    [[nodiscard]] std::size_t put_header(std::span<std::byte> into, const Request& request,
                                         wire::Chunk type, const Fields& fields,
                                         std::size_t data_bytes, bool last) const noexcept;

    ReplyQueue& queue_;
    const ReplyStyle style_;
};

}  // namespace nbdm
