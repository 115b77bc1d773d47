// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bitset>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "iothread/buffer_pool.h"
#include "iothread/disk_operation.h"
#include "server/nbd_wire.h"

namespace nbdm {

class Executor;
class Transmission;

// How requests and replies look, as negotiated; each includes what the one before can express.
enum class ReplyStyle {
    simple,      // compact requests; a reply is an error, and the data of a successful read
    structured,  // compact requests; reads and block status are answered in chunks
    extended,    // NBD_OPT_EXTENDED_HEADERS: 64-bit lengths; everything is answered in chunks
};

// What a request's header says, in whichever form it came.
struct RequestHead {
    wire::Command command{};
    std::uint16_t flags = 0;
    std::uint64_t cookie = 0;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;  // of the effect, or, with a payload, of that
    bool has_payload = false;

    // `header` holds header_bytes(style) bytes. Nothing when they are no request.
    [[nodiscard]] static std::optional<RequestHead> decode(std::span<const std::byte> header,
                                                           ReplyStyle style) noexcept;
    [[nodiscard]] static constexpr std::size_t header_bytes(ReplyStyle style) noexcept {
        return style == ReplyStyle::extended ? sizeof(wire::ExtendedRequestHeader)
                                             : sizeof(wire::RequestHeader);
    }
};

// One request of a client, from its header to its reply: a slot of its connection, with the buffer
// that the kernel and the reply point at.
//
// Threads: the connection's iothread.
class Request final : public DiskOperation {
  public:
    // More stretches of one read than this are read as data.
    static constexpr std::size_t kMaxExtents = 16;
    // Contexts that a connection can select.
    static constexpr std::size_t kMaxContexts = 64;

    wire::Command command{};
    std::uint16_t flags = 0;
    std::uint64_t cookie = 0;
    Range range;
    Buffer buffer;
    std::chrono::steady_clock::time_point arrived;

    // Of a read that is answered with holes: its stretches, and the next one to read.
    std::array<FileExtent, kMaxExtents> extents;
    std::size_t extent_count = 0;
    std::size_t next_extent = 0;
    // Its data is not read into the buffer, but sent from the file's pages.
    bool from_file = false;

    // Of a write that is slowed down: when it begins.
    std::chrono::steady_clock::time_point begins;

    // Of an unaligned zeroing on a direct export: what is left are whole blocks.
    bool ends_are_zero = false;

    // Of a block status request: the selected contexts that it asks for, by their place.
    std::bitset<kMaxContexts> contexts;

    Transmission* owner = nullptr;
    Executor* executor = nullptr;

    // The slot takes up a new request, which has no buffer yet.
    void begin(const RequestHead& head, std::chrono::steady_clock::time_point now) noexcept;
    [[nodiscard]] bool has(std::uint16_t flag) const noexcept { return (flags & flag) != 0; }
    // Changes the disk: passes the write gate and marks the dirty maps.
    [[nodiscard]] bool writes() const noexcept {
        return command == wire::Command::write || command == wire::Command::trim ||
               command == wire::Command::write_zeroes;
    }

  private:
    void finished(int error) noexcept override;
};

// The payload of a block status request, every context once.
constexpr std::size_t kMaxBlockStatusPayloadBytes =
    sizeof(wire::BlockStatusPayload) + Request::kMaxContexts * sizeof(wire::Big32);

// What a header is checked against.
struct RequestRules {
    std::uint64_t size_bytes = 0;
    bool read_only = false;
    ReplyStyle replies = ReplyStyle::simple;
    bool block_status = false;  // at least one context was selected
};

// What is wrong with a request, Error::none when nothing. No side effects; the payload of a
// refused request is still to be taken off the stream.
[[nodiscard]] wire::Error validate(const RequestHead& head, const RequestRules& rules) noexcept;

// The same for the range that a block status request names in its payload.
[[nodiscard]] wire::Error validate_block_status(Range range, const RequestRules& rules) noexcept;

}  // namespace nbdm
