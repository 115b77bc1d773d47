// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "server/export.h"
#include "server/handshake.h"
#include "server/nbd_wire.h"
#include "server/reply_writer.h"
#include "server/request.h"

namespace nbdm {

// Answers the block status requests of one connection.
//
// Threads: the connection's iothread.
class BlockStatus {
  public:
    // What an answer is made in: so much memory is leased for each request.
    static constexpr std::size_t kAnswerBytes = 4096 * sizeof(wire::ExtendedBlockDescriptor);

    // `extents_fd` is from DiskFile::open_again, this thread's own. All outlive this.
    BlockStatus(const Session& session, int extents_fd, ReplyWriter& answer) noexcept
        : session_(session), extents_fd_(extents_fd), answer_(answer) {}

    // What the payload of an extended request asks for: takes the length of the range and the
    // contexts, each of which was selected and is named once, into the request.
    [[nodiscard]] wire::Error read_payload(Request& request,
                                           std::span<const std::byte> payload) const noexcept;

    // Replies for each context that is asked for, from the start of the range on; neighbours that
    // are alike are one. An answer that would be too long ends early, a client asks on from there.
    // Anything but Error::none: nothing was replied.
    [[nodiscard]] wire::Error answer(Request& request);

  private:
    template <typename Descriptor>  // wire::BlockDescriptor or wire::ExtendedBlockDescriptor
    void describe_contexts(Request& request);

    const Session& session_;
    const int extents_fd_;
    ReplyWriter& answer_;
};

}  // namespace nbdm
