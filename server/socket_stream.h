// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "iothread/io_thread.h"

namespace nbdm {

// Why a connection ended.
enum class DisconnectReason {
    client_left,         // it said so (NBD_CMD_DISC, NBD_OPT_ABORT)
    connection_lost,     // end of stream or socket error
    handshake_time_out,  // the client did not finish its negotiation in time
    protocol_error,      // bytes that are not NBD
    request_time_out,    // the client stopped in the middle of a request
    holds_memory,        // the same, while others wait for memory
    answers_not_taken,   // while others wait for the memory they are in
    disk_failed,         // in the middle of an answer
    unknown_export,      // NBD_OPT_EXPORT_NAME for a name that is not served
    too_many_wait,       // for disks to land
    export_retired,      // the disk has moved away
    shut_out,            // a later epoch of the mirror's session has come
    server_stopped,
};
[[nodiscard]] const char* to_string(DisconnectReason reason) noexcept;
// The client did something wrong, or failed to do something.
[[nodiscard]] bool is_clients_fault(DisconnectReason reason) noexcept;

// Lock-step bytes of the negotiation: all of it, before a deadline, or a
// reason. Stops when the thread is asked to.
//
// Threads: the connection's iothread.
class SocketStream {
  public:
    using Clock = std::chrono::steady_clock;

    SocketStream(int fd, IoThread& thread, Clock::time_point deadline) noexcept
        : fd_(fd), thread_(thread), deadline_(deadline) {}

    // False: see reason().
    [[nodiscard]] bool read(std::span<std::byte> into) noexcept;
    [[nodiscard]] bool skip(std::uint64_t bytes) noexcept;
    [[nodiscard]] bool write(std::span<const std::byte> from) noexcept;

    // Waits, for as long as the client is there, until `done`, which is asked when the thread is
    // woken; the deadline is put off by as long. False: see reason().
    [[nodiscard]] bool wait_until(const std::function<bool()>& done) noexcept;

    [[nodiscard]] DisconnectReason reason() const noexcept { return reason_; }
    [[nodiscard]] IoThread& thread() const noexcept { return thread_; }
    [[nodiscard]] Clock::time_point deadline() const noexcept { return deadline_; }

  private:
    [[nodiscard]] bool wait_for(short events) noexcept;

    const int fd_;
    IoThread& thread_;
    Clock::time_point deadline_;
    DisconnectReason reason_ = DisconnectReason::connection_lost;
};

}  // namespace nbdm
