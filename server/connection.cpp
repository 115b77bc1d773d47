// SPDX-License-Identifier: Apache-2.0
#include "server/connection.h"

#include <exception>
#include <unistd.h>
#include <utility>

#include <sys/socket.h>

#include "control/log.h"
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
    try {
        negotiate_and_serve();
    } catch (const std::exception& error) {
        log_error("client " + options_.peer + ": " + error.what());
    }
    ::shutdown(socket_.get(), SHUT_RDWR);  // the client learns of it now, not when it is reaped
    done_.store(true, std::memory_order_release);
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(options_.done_fd, &one, sizeof(one));
}

void Connection::negotiate_and_serve() {
    SocketStream stream(socket_.get(), thread_,
                        SocketStream::Clock::now() + options_.handshake_timeout);
    Handshake handshake(stream, exports_);
    std::optional<Session> session = handshake.run();
    if (!session) {
        const std::string line =
            "client " + options_.peer + " was not served: " + to_string(handshake.reason());
        const bool expected = handshake.reason() == DisconnectReason::client_left ||
                              handshake.reason() == DisconnectReason::server_stopped;
        expected ? log_debug(line) : log_warning(line);
        return;
    }
    Export& served = *session->served;
    served_.store(&served, std::memory_order_release);
    const std::string who = "client " + options_.peer + " of export '" + served.name() + "'";
    log_info(who + " is connected" + (session->read_only ? ", read-only" : ""));
    Transmission transmission(thread_, socket_.get(), std::move(*session),
                              {.peer = options_.peer,
                               .request_timeout = options_.request_timeout,
                               .memory = *options_.memory,
                               .statistics = statistics_});
    const DisconnectReason reason = transmission.run();
    const std::string line = who + " is disconnected: " + to_string(reason);
    is_clients_fault(reason) ? log_warning(line) : log_info(line);
}

}  // namespace nbdm
