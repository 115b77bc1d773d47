// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "iothread/block_digests.h"
#include "iothread/extent_memory.h"
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
    // `own_fd` is from DiskFile::open_again, this thread's own. All outlive this.
    BlockStatus(const Session& session, int own_fd, ExtentMemory& extents,
                ReplyWriter& answer) noexcept;

    // What each request needs: for the answer and, in front of it, for what digests are made of.
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return kAnswerBytes + (digests_ ? BlockDigests::kMemoryBytes : 0);
    }

    // What the payload of an extended request asks for: takes the length of the range and the
    // contexts, each of which was selected and is named once, into the request.
    [[nodiscard]] wire::Error read_payload(Request& request,
                                           std::span<const std::byte> payload) const noexcept;

    // Replies for each context that is asked for, from the start of the range on; neighbours that
    // are alike are one. An answer that would be too long ends early, a client asks on from there.
    // Anything but 0, an errno: nothing was replied. Digests are read here and now; the thread does
    // nothing else meanwhile.
    [[nodiscard]] int answer(Request& request);

    // Its answer takes as long as reading some MiB: it asks for digests.
    [[nodiscard]] bool reads(const Request& request) const noexcept;

  private:
    static constexpr std::size_t kAnswerBytes = 4096 * sizeof(wire::ExtendedBlockDescriptor);

    template <typename Descriptor>  // wire::BlockDescriptor or wire::ExtendedBlockDescriptor
    void describe_contexts(Request& request);

    const Session& session_;
    ExtentMemory& extents_;
    ReplyWriter& answer_;
    std::optional<BlockDigests> digests_;  // where some of them were selected
    std::vector<DigestRun> digest_runs_;   // of the request that is answered
};

}  // namespace nbdm
