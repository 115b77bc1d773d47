// SPDX-License-Identifier: Apache-2.0
#include "server/connection.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <exception>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include <sys/socket.h>

#include "control/log.h"
#include "iothread/event_fd.h"
#include "iothread/time_slice.h"
#include "server/handshake.h"
#include "server/socket_stream.h"
#include "server/transmission.h"

namespace nbdm {

Connection::Connection(UniqueFd socket, Options options, const ExportTable& exports)
    : options_(std::move(options)),
      exports_(exports),
      socket_(std::move(socket)),
      thread_({.name = "nbd-" + std::to_string(options_.id), .cpu = options_.cpu},
              [this](IoThread&) { run(); }) {}

void Connection::abandon() noexcept {
    ::shutdown(socket_.get(), SHUT_RDWR);
}

void Connection::run() noexcept {
    DisconnectReason reason = DisconnectReason::connection_lost;
    try {
        reason = negotiate_and_serve();
    } catch (const std::exception& error) {
        log_error("client " + options_.peer + ": " + error.what());
    }
    if (reason == DisconnectReason::server_stopped || reason == DisconnectReason::export_retired) {
        let_client_read();
    }
    ::shutdown(socket_.get(), SHUT_RDWR);  // the client learns of it now, not when it is reaped
    done_.store(true, std::memory_order_release);
    ring_event_fd(options_.done_fd);
}

// A TCP connection that is closed with requests unread is reset, and answers on their way are lost.
// So the client learns first that no more will come, and what it still sends is dropped.
void Connection::let_client_read() noexcept {
    using Clock = std::chrono::steady_clock;
    constexpr std::chrono::milliseconds kLimit{1000};
    ::shutdown(socket_.get(), SHUT_WR);
    const Clock::time_point end = Clock::now() + kLimit;
    std::array<std::byte, 16384> dropped;
    for (Clock::time_point now = Clock::now(); now < end; now = Clock::now()) {
        pollfd wait{socket_.get(), POLLIN, 0};
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now);
        ::poll(&wait, 1, static_cast<int>(left.count()));
        const ssize_t count = ::recv(socket_.get(), dropped.data(), dropped.size(), MSG_DONTWAIT);
        if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
            return;
        }
    }
}

DisconnectReason Connection::negotiate_and_serve() {
    SocketStream stream(socket_.get(), thread_,
                        SocketStream::Clock::now() + options_.handshake_timeout);
    Handshake handshake(stream, exports_);
    std::optional<Session> session = handshake.run();
    if (!session) {
        const std::string who = "client " + options_.peer + " was not served: ";
        if (handshake.unknown_export()) {
            log_warning(who + "it asked for export '" + *handshake.unknown_export() +
                        "', and there is none of this name");
        } else if (handshake.reason() == DisconnectReason::client_left ||
                   handshake.reason() == DisconnectReason::server_stopped) {
            log_debug(who + to_string(handshake.reason()));
        } else {
            log_warning(who + to_string(handshake.reason()));
        }
        return handshake.reason();
    }
    Export& served = *session->served;
    background_ = session->is_background();
    if (background_) {
        take_long_turns();
    }
    served_.store(&served, std::memory_order_release);
    const std::string who = "client " + options_.peer + " of " + served.quoted();
    log_info(who + " is connected" + (session->read_only ? ", read-only" : ""));
    Transmission transmission(thread_, socket_.get(), std::move(*session),
                              {.peer = options_.peer,
                               .request_timeout = options_.request_timeout,
                               .memory = *options_.memory,
                               .statistics = statistics_});
    const DisconnectReason reason = transmission.run();
    const std::string line = who + " is disconnected: " + to_string(reason);
    is_clients_fault(reason) ? log_warning(line) : log_info(line);
    return reason;
}

}  // namespace nbdm
