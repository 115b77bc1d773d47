// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "iothread/buffer_pool.h"
#include "iothread/disk_operation.h"
#include "server/nbd_wire.h"

namespace nbdm {

class Transmission;

// One request of a client, from its header to its reply: a slot of its connection, with the buffer
// that the kernel and the reply point at.
//
// Threads: the connection's iothread.
class Request final : public DiskOperation {
  public:
    // More stretches of one read than this are read as data.
    static constexpr std::size_t kMaxExtents = 16;

    wire::Command command{};
    std::uint16_t flags = 0;
    std::uint64_t cookie = 0;
    Range range;
    Buffer buffer;

    // Of a read that is answered with holes: its stretches, and the next one to read.
    std::array<FileExtent, kMaxExtents> extents;
    std::size_t extent_count = 0;
    std::size_t next_extent = 0;

    Transmission* owner = nullptr;

    [[nodiscard]] bool has(std::uint16_t flag) const noexcept { return (flags & flag) != 0; }
    // Changes the disk: passes the write gate and marks the dirty maps.
    [[nodiscard]] bool writes() const noexcept {
        return command == wire::Command::write || command == wire::Command::trim ||
               command == wire::Command::write_zeroes;
    }

  private:
    void finished(int error) noexcept override;
};

// What a header is checked against.
struct RequestRules {
    std::uint64_t size_bytes = 0;
    bool read_only = false;
    bool structured_replies = false;
    bool block_status = false;  // at least one context was selected
};

// What is wrong with a request, Error::none when nothing. No side effects; the payload of a
// refused write is still to be taken off the stream.
[[nodiscard]] wire::Error validate(const wire::RequestHeader& header,
                                   const RequestRules& rules) noexcept;

}  // namespace nbdm
