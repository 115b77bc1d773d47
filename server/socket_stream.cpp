// SPDX-License-Identifier: Apache-2.0
#include "server/socket_stream.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <poll.h>

#include <sys/socket.h>

#include "iothread/event_fd.h"

namespace nbdm {

const char* to_string(DisconnectReason reason) noexcept {
    switch (reason) {
        case DisconnectReason::client_left:
            return "the client left";
        case DisconnectReason::connection_lost:
            return "the connection was lost";
        case DisconnectReason::handshake_time_out:
            return "the negotiation took too long";
        case DisconnectReason::protocol_error:
            return "the client does not speak NBD";
        case DisconnectReason::request_time_out:
            return "it stopped in the middle of a request";
        case DisconnectReason::holds_memory:
            return "it stopped in the middle of a request, and others wait for the memory it has "
                   "(--buffer-memory)";
        case DisconnectReason::disk_failed:
            return "its disk failed in the middle of an answer";
        case DisconnectReason::answers_not_taken:
            return "it does not take its answers, and others wait for the memory they are in "
                   "(--buffer-memory)";
        case DisconnectReason::unknown_export:
            return "the client asked for an export that is not served";
        case DisconnectReason::too_many_wait:
            return "half of all connections (--max-connections) wait for a disk to land already";
        case DisconnectReason::export_retired:
            return "the disk has moved away";
        case DisconnectReason::shut_out:
            return "later connections of the same mirror have taken its place";
        case DisconnectReason::server_stopped:
            return "the server stops";
    }
    return "";
}

bool is_clients_fault(DisconnectReason reason) noexcept {
    switch (reason) {
        case DisconnectReason::handshake_time_out:
        case DisconnectReason::protocol_error:
        case DisconnectReason::request_time_out:
        case DisconnectReason::holds_memory:
        case DisconnectReason::answers_not_taken:
        case DisconnectReason::unknown_export:
            return true;
        default:
            return false;
    }
}

bool SocketStream::read(std::span<std::byte> into) noexcept {
    while (!into.empty()) {
        const ssize_t count = ::recv(fd_, into.data(), into.size(), MSG_DONTWAIT);
        if (count > 0) {
            into = into.subspan(static_cast<std::size_t>(count));
        } else if (count < 0 && errno == EAGAIN) {
            if (!wait_for(POLLIN)) {
                return false;
            }
        } else if (count == 0 || errno != EINTR) {
            reason_ = DisconnectReason::connection_lost;
            return false;
        }
    }
    return true;
}

bool SocketStream::skip(std::uint64_t bytes) noexcept {
    std::array<std::byte, 4096> dropped;
    while (bytes > 0) {
        const std::size_t part = std::min<std::uint64_t>(bytes, dropped.size());
        if (!read(std::span(dropped).first(part))) {
            return false;
        }
        bytes -= part;
    }
    return true;
}

bool SocketStream::write(std::span<const std::byte> from) noexcept {
    while (!from.empty()) {
        const ssize_t count = ::send(fd_, from.data(), from.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count >= 0) {
            from = from.subspan(static_cast<std::size_t>(count));
        } else if (errno == EAGAIN) {
            if (!wait_for(POLLOUT)) {
                return false;
            }
        } else if (errno != EINTR) {
            reason_ = DisconnectReason::connection_lost;
            return false;
        }
    }
    return true;
}

bool SocketStream::wait_until(const std::function<bool()>& done) noexcept {
    const Clock::time_point begin = Clock::now();
    while (!done()) {
        std::array<pollfd, 2> fds{pollfd{fd_, POLLRDHUP, 0}, pollfd{thread_.wake_fd(), POLLIN, 0}};
        const int ready = ::poll(fds.data(), fds.size(), -1);
        if (thread_.stop_requested()) {
            reason_ = DisconnectReason::server_stopped;
            return false;
        }
        if ((ready > 0 && fds[0].revents != 0) || (ready < 0 && errno != EINTR)) {
            reason_ = DisconnectReason::connection_lost;
            return false;
        }
        if (ready > 0) {
            clear_event_fd(thread_.wake_fd());
        }
    }
    deadline_ += Clock::now() - begin;
    return true;
}

bool SocketStream::wait_for(short events) noexcept {
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now());
        if (left.count() <= 0) {
            reason_ = DisconnectReason::handshake_time_out;
            return false;
        }
        std::array<pollfd, 2> fds{pollfd{fd_, events, 0}, pollfd{thread_.wake_fd(), POLLIN, 0}};
        const int ready = ::poll(fds.data(), fds.size(), static_cast<int>(left.count()));
        if (thread_.stop_requested()) {
            reason_ = DisconnectReason::server_stopped;
            return false;
        }
        if (ready > 0 && fds[0].revents != 0) {
            return true;
        }
        if (ready > 0) {
            // Woken for something that concerns only established connections.
            clear_event_fd(thread_.wake_fd());
        }
        if (ready < 0 && errno != EINTR) {
            reason_ = DisconnectReason::connection_lost;
            return false;
        }
    }
}

}  // namespace nbdm
