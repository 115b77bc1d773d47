// SPDX-License-Identifier: Apache-2.0
#include "server/listener.h"

#include <cerrno>
#include <netdb.h>
#include <stdexcept>
#include <unistd.h>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "control/log.h"
#include "control/socket_address.h"
#include "control/unix_socket.h"
#include "control/uri.h"
#include "iothread/check.h"

namespace nbdm {

namespace {

constexpr int kBacklog = 128;
// While no descriptor can be had for a new client, this long until the next try.
constexpr timeval kAcceptPause{1, 0};

void set_option(int fd, int level, int name, int value) {
    // What cannot be set costs speed or a late notice, not correctness.
    ::setsockopt(fd, level, name, &value, sizeof(value));
}

// Of a socket that is bound or about to be.
sockaddr_storage bound_address(int fd, socklen_t& length) {
    sockaddr_storage bound{};
    length = sizeof(bound);
    check_errno(::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length),
                "cannot learn the address of a listening socket");
    return bound;
}

// A Unix socket's path; anything else is known by the sockets themselves.
ListenAddress address_of(int fd) {
    socklen_t length = 0;
    const sockaddr_storage bound = bound_address(fd, length);
    ListenAddress address;
    if (bound.ss_family == AF_UNIX) {
        address.path =
            static_cast<const char*>(reinterpret_cast<const sockaddr_un&>(bound).sun_path);
        if (address.path.empty()) {
            throw std::runtime_error(
                "a Unix socket that the service manager has opened has no path");
        }
    }
    return address;
}

}  // namespace

ListenAddress ListenAddress::parse(const std::string& text) {
    const std::string bad = "--listen '" + text + "': tcp:HOST:PORT or unix:PATH is expected";
    if (text.starts_with("unix:") && text.size() > 5) {
        return {.host = {}, .port = {}, .path = text.substr(5)};
    }
    const std::size_t colon = text.rfind(':');
    if (!text.starts_with("tcp:") || colon < 4 || colon + 1 == text.size()) {
        throw std::invalid_argument(bad);
    }
    const std::string port = text.substr(colon + 1);
    if (port.find_first_not_of("0123456789") != std::string::npos || port.size() > 5 ||
        std::stoi(port) > 65535) {
        throw std::invalid_argument("--listen '" + text + "': a port is a number of at most 65535");
    }
    std::string host = text.substr(4, colon - 4);
    if (host.starts_with('[') && host.ends_with(']')) {
        host = host.substr(1, host.size() - 2);
    }
    return {.host = host, .port = port, .path = {}};
}

std::string ListenAddress::to_string() const {
    return path.empty() ? "tcp:" + host + ":" + port : "unix:" + path;
}

Listener::Listener(Accepted accepted, ListenAddress address, event_base* base)
    : address_(std::move(address)),
      accepted_(std::move(accepted)),
      resume_(evtimer_new(
          base, [](evutil_socket_t, short, void* self) { static_cast<Listener*>(self)->resume(); },
          this)) {}

Listener::Listener(event_base* base, UniqueFd listening, Accepted accepted)
    : Listener(std::move(accepted), address_of(listening.get()), base) {
    evutil_make_socket_nonblocking(listening.get());
    add(base, std::move(listening));
}

Listener::Listener(event_base* base, ListenAddress address, Accepted accepted)
    : Listener(std::move(accepted), std::move(address), base) {
    if (address_.path.empty()) {
        listen_tcp(base);
    } else {
        listen_unix(base);
    }
}

Listener::~Listener() {
    if (made_socket_file_) {
        ::unlink(address_.path.c_str());
    }
}

void Listener::stop_accepting() {
    listeners_.clear();
    if (std::exchange(made_socket_file_, false)) {
        ::unlink(address_.path.c_str());
    }
}

void Listener::listen_unix(event_base* base) {
    UniqueFd socket = bind_unix_socket(address_.path, std::nullopt);
    made_socket_file_ = true;
    add(base, std::move(socket));
}

void Listener::listen_tcp(event_base* base) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    addrinfo* found = nullptr;
    const int result = ::getaddrinfo(address_.host.empty() ? nullptr : address_.host.c_str(),
                                     address_.port.c_str(), &hints, &found);
    const std::string what = "cannot listen on " + address_.to_string();
    if (result != 0) {
        throw std::runtime_error(what + ": " + ::gai_strerror(result));
    }
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, &::freeaddrinfo);
    int error = 0;
    for (const addrinfo* each = addresses.get(); each != nullptr; each = each->ai_next) {
        UniqueFd socket(::socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!socket.valid()) {
            error = errno;
            continue;  // a machine without IPv6
        }
        set_option(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
        if (each->ai_family == AF_INET6) {
            set_option(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
        }
        if (::bind(socket.get(), each->ai_addr, each->ai_addrlen) < 0) {
            error = errno;
            if (error == EADDRINUSE) {
                break;
            }
            continue;
        }
        check_errno(::listen(socket.get(), kBacklog), what);
        add(base, std::move(socket));
    }
    if (error == EADDRINUSE || listeners_.empty()) {
        throw errno_error(
            error, error == EADDRNOTAVAIL ? what + ", since this host has no such address" : what);
    }
}

void Listener::add(event_base* base, UniqueFd socket) {
    if (address_.path.empty()) {
        socklen_t length = 0;
        const sockaddr_storage bound = bound_address(socket.get(), length);
        bound_.push_back(host_and_port(reinterpret_cast<const sockaddr*>(&bound), length));
    }
    evconnlistener* made = evconnlistener_new(
        base,
        [](evconnlistener*, evutil_socket_t fd, sockaddr* peer, int, void* self) {
            static_cast<Listener*>(self)->accept(fd, peer);
        },
        this, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, /*backlog, it listens already=*/0,
        socket.get());
    if (made == nullptr) {
        throw std::runtime_error("cannot listen on " + address_.to_string());
    }
    [[maybe_unused]] const int owned_by_listener = socket.release();
    evconnlistener_set_error_cb(
        made, [](evconnlistener*, void* self) { static_cast<Listener*>(self)->pause(); });
    listeners_.emplace_back(made);
}

void Listener::pause() {
    log_error("cannot accept a client: " + error_text(errno) + "; trying again in a second");
    for (const auto& listener : listeners_) {
        evconnlistener_disable(listener.get());
    }
    evtimer_add(resume_.get(), &kAcceptPause);
}

void Listener::resume() {
    for (const auto& listener : listeners_) {
        evconnlistener_enable(listener.get());
    }
}

void Listener::accept(evutil_socket_t fd, sockaddr* peer) {
    UniqueFd socket(fd);
    if (!address_.path.empty()) {
        ucred credentials{};
        socklen_t length = sizeof(credentials);
        std::string name = "at " + address_.path;
        if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0) {
            name += " (process " + std::to_string(credentials.pid) + ")";
        }
        // Replies to bulk reads are larger than the default buffer.
        set_option(fd, SOL_SOCKET, SO_SNDBUF, 1 << 20);
        accepted_(std::move(socket), std::move(name));
        return;
    }
    // Requests and replies are small and waited for (Nagle costs 40 ms each); a peer whose host
    // died is noticed in a minute and a half. No TCP_USER_TIMEOUT: it would also cut off a guest
    // that stands still (a debugger, a snapshot) with replies before it.
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 6);
    const socklen_t length =
        peer->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    accepted_(std::move(socket), host_and_port(peer, length));
}

std::vector<std::string> Listener::addresses() const {
    if (!address_.path.empty()) {
        return {"unix:" + address_.path};
    }
    std::vector<std::string> result;
    for (const std::string& where : bound_) {
        result.push_back("tcp:" + where);
    }
    return result;
}

std::vector<std::string> Listener::uris(const std::string& export_name) const {
    const std::string name = percent_encode(export_name);
    if (!address_.path.empty()) {
        return {"nbd+unix:///" + name + "?socket=" + percent_encode_path(address_.path)};
    }
    std::vector<std::string> result;
    for (const std::string& where : bound_) {
        result.push_back("nbd://" + where);
        result.back().append("/").append(name);
    }
    return result;
}

}  // namespace nbdm
