// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "iothread/range.h"
#include "iothread/ring.h"
#include "server/request.h"

namespace nbdm {

// Finished replies on their way to the client: everything that is ready goes out in one vectored
// send. A client that does not take them makes the queue wait for the socket, without a thread
// being blocked.
//
// Threads: the connection's iothread. Limits: as many entries as the requests that are replied to
//          have parts.
class ReplyQueue final : public Operation {
  public:
    static constexpr std::size_t kMaxHeaderBytes = 48;

    // `fd` is a non-blocking socket, `file_fd` the disk that push_file() sends from.
    ReplyQueue(Ring& ring, int fd, int file_fd) : ring_(ring), fd_(fd), file_fd_(file_fd) {}

    // Appends a header (copied) and data that stays where it is. `last_of`: the request whose
    // memory the data is in and which is done with when all of it was sent; may be null.
    void push(std::span<const std::byte> header, std::span<const std::byte> data, Request* last_of);

    // The same with data that the kernel takes from the file's pages when it is sent: no copy is
    // made, and what is sent is what stands there then.
    void push_file(std::span<const std::byte> header, Range data, Request* last_of);

    enum class Sent { taken, socket_failed, file_failed };
    // Sends what the socket takes, and gives requests whose last part went out to
    // Transmission::replied(). `taken`: all of it, or as much as the socket had room for; the rest
    // goes after a later completion. Failed, with errno: nothing can be sent any more.
    [[nodiscard]] Sent send();
    // Forgets what was not sent; its requests are given to Transmission::release().
    void drop();
    // The same, and whatever is pushed from now on is not sent. Nothing can be received either.
    void cut_off();
    void cancel() { ring_.cancel(*this); }

    [[nodiscard]] bool empty() const noexcept { return next_ == entries_.size(); }
    // What the socket has taken and the client has not, as the kernel counts it: a Unix socket's
    // bytes with what it needs for them.
    [[nodiscard]] std::uint64_t untaken_bytes() const noexcept;

  private:
    static constexpr std::size_t kMaxParts = 128;  // of one send; the kernel allows 1024

    struct Entry {
        std::array<std::byte, kMaxHeaderBytes> header;
        std::size_t header_bytes = 0;
        std::span<const std::byte> data;  // in memory
        Range file;                       // or in the file
        Request* last_of = nullptr;
        [[nodiscard]] std::size_t size() const noexcept {
            return header_bytes + data.size() + file.length;
        }
    };

    void completed(int result) noexcept override;
    // Up to the next data that is in the file; `file_follows`: there is some.
    [[nodiscard]] std::size_t gather(std::span<struct iovec> parts, bool& file_follows) noexcept;
    [[nodiscard]] ssize_t send_some() noexcept;
    Entry& push_header(std::span<const std::byte> header, Request* last_of);
    template <typename Done>
    void advance(std::size_t bytes, Done done);

    Ring& ring_;
    const int fd_;
    const int file_fd_;
    std::vector<Entry> entries_;    // keeps its memory: no allocation in a steady state
    std::size_t next_ = 0;          // the first entry that is not sent
    std::size_t sent_of_next_ = 0;  // bytes of it that are
};

}  // namespace nbdm
