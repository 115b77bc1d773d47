// SPDX-License-Identifier: Apache-2.0
#include "client/nbd_handle.h"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "control/socket_address.h"

namespace nbdm {

namespace {

using Clock = std::chrono::steady_clock;

// A server that is there answers a negotiation in a fraction of this.
constexpr std::chrono::milliseconds kConnectLimit{10'000};
// How often a wait looks at the cancellation.
constexpr int kPollMs = 100;
// A bulk request and its reply fit into a Unix socket: the default buffer makes every request
// several turns of sender and receiver. TCP sizes its buffers itself, better.
constexpr int kUnixBufferBytes = 1 << 20;
// After this long without an acknowledgement by the peer's host a TCP connection is lost.
constexpr int kDeadHostMs = 60'000;

void set_option(int fd, int level, int option, int value) noexcept {
    // A wish: a socket that refuses works too, less well.
    ::setsockopt(fd, level, option, &value, sizeof(value));
}

void tune_socket(int fd) noexcept {
    sockaddr_storage address{};
    socklen_t length = sizeof(address);
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
        return;
    }
    if (address.ss_family == AF_UNIX) {
        set_option(fd, SOL_SOCKET, SO_SNDBUF, kUnixBufferBytes);
        set_option(fd, SOL_SOCKET, SO_RCVBUF, kUnixBufferBytes);
    } else if (address.ss_family == AF_INET || address.ss_family == AF_INET6) {
        set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kDeadHostMs / 4000);
        set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kDeadHostMs / 4000);
        set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kDeadHostMs);
    }
}

}  // namespace

std::string NbdHandle::last_error() {
    const char* text = nbd_get_error();
    std::string result = text != nullptr ? text : "unknown error";
    // "nbd_aio_connect_uri: connect: No such file or directory"
    if (result.starts_with("nbd_")) {
        const std::size_t colon = result.find(": ");
        if (colon != std::string::npos) {
            result.erase(0, colon + 2);
        }
    }
    return result;
}

NbdHandle::NbdHandle(std::string uri, const std::vector<std::string>& meta_contexts,
                     const Cancellation& cancellation)
    : uri_(std::move(uri)), handle_(nbd_create()) {
    if (handle_ == nullptr) {
        throw JobError("cannot make an NBD client: " + last_error());
    }
    try {
        for (const std::string& context : meta_contexts) {
            nbd_add_meta_context(handle_, context.c_str());
        }
        // The user wrote the URI: it may name a file with a TLS key.
        nbd_set_uri_allow_local_file(handle_, true);
        if (nbd_aio_connect_uri(handle_, uri_.c_str()) < 0) {
            throw ConnectionLost("cannot connect to " + uri_ + ": " + last_error());
        }
        run_until([this] { return nbd_aio_is_connecting(handle_) == 0; }, kConnectLimit,
                  cancellation);
        if (nbd_aio_is_ready(handle_) != 1) {
            const std::string error = last_error();
            // libnbd does not tell what else the server has said.
            const bool refused = error.find("server policy") != std::string::npos;
            throw ConnectionLost("cannot connect to " + uri_ + ": " + error +
                                 (refused ? " (the server's log says why)" : ""));
        }
        tune_socket(nbd_aio_get_fd(handle_));
    } catch (...) {  // NOLINT: the handle has no owner yet; passed on
        nbd_close(handle_);
        throw;
    }
}

NbdHandle::~NbdHandle() {
    if (nbd_aio_is_ready(handle_) == 1) {
        nbd_aio_disconnect(handle_, 0);
    }
    nbd_close(handle_);
}

void NbdHandle::abandon() noexcept {
    const int fd = nbd_aio_get_fd(handle_);
    if (fd >= 0) {
        ::shutdown(fd, SHUT_RDWR);
    }
}

EndpointTraits NbdHandle::traits() const {
    EndpointTraits traits;
    const std::int64_t size = nbd_get_size(handle_);
    if (size < 0) {
        throw JobError("cannot learn the size of " + uri_ + ": " + last_error());
    }
    traits.size_bytes = static_cast<std::uint64_t>(size);
    traits.read_only = nbd_is_read_only(handle_) == 1;
    traits.can_flush = nbd_can_flush(handle_) == 1;
    traits.can_zero = nbd_can_zero(handle_) == 1;
    traits.can_multi_conn = nbd_can_multi_conn(handle_) == 1;
    traits.knows_extents = nbd_can_meta_context(handle_, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    traits.incoming = nbd_can_meta_context(handle_, kIncomingContext) == 1;
    const std::int64_t minimum = nbd_get_block_size(handle_, LIBNBD_SIZE_MINIMUM);
    const std::int64_t maximum = nbd_get_block_size(handle_, LIBNBD_SIZE_MAXIMUM);
    traits.alignment = static_cast<std::uint64_t>(std::max<std::int64_t>(minimum, 1));
    if (maximum > 0) {
        traits.max_payload_bytes =
            std::min<std::uint64_t>(static_cast<std::uint64_t>(maximum), traits.max_payload_bytes);
    }
    return traits;
}

std::string NbdHandle::local_address() const {
    sockaddr_storage address{};
    socklen_t length = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::getsockname(nbd_aio_get_fd(handle_), generic, &length) != 0 ||
        (address.ss_family != AF_INET && address.ss_family != AF_INET6)) {
        return "";
    }
    return host_and_port(generic, length);
}

void NbdHandle::run_until(const std::function<bool()>& done, std::chrono::milliseconds limit,
                          const Cancellation& cancellation) {
    const Clock::time_point deadline = Clock::now() + limit;
    while (!done()) {
        if (cancellation.requested()) {
            throw Cancelled();
        }
        if (Clock::now() >= deadline) {
            throw ConnectionLost("no answer from " + uri_ + " for " +
                                 std::to_string(limit.count() / 1000) + " s");
        }
        const unsigned direction = nbd_aio_get_direction(handle_);
        pollfd fd{nbd_aio_get_fd(handle_), 0, 0};
        if (fd.fd < 0) {
            throw ConnectionLost("the connection to " + uri_ + " was lost: " + last_error());
        }
        fd.events =
            static_cast<short>(((direction & LIBNBD_AIO_DIRECTION_READ) != 0 ? POLLIN : 0) |
                               ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? POLLOUT : 0));
        if (::poll(&fd, 1, kPollMs) <= 0) {
            continue;
        }
        int result = 0;
        if ((fd.revents & (POLLIN | POLLHUP | POLLERR)) != 0 &&
            (direction & LIBNBD_AIO_DIRECTION_READ) != 0) {
            result = nbd_aio_notify_read(handle_);
        } else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
            result = nbd_aio_notify_write(handle_);
        }
        if (result < 0 || nbd_aio_is_dead(handle_) == 1) {
            if (done()) {
                return;
            }
            throw ConnectionLost("cannot talk to " + uri_ + ": " + last_error());
        }
    }
}

}  // namespace nbdm
