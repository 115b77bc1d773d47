// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <event2/event.h>
#include <event2/listener.h>

#include "control/event.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// Where to listen: `tcp:HOST:PORT` (HOST may be a name, an address, or an IPv6 address in
// brackets; empty: every address) or `unix:PATH`.
struct ListenAddress {
    std::string host;
    std::string port;
    std::string path;  // Unix socket when not empty

    // Throws std::invalid_argument with a sentence.
    [[nodiscard]] static ListenAddress parse(const std::string& text);
    [[nodiscard]] std::string to_string() const;
};

// The sockets of one listen address, or one that the service manager has opened. Accepted sockets
// are non-blocking, close-on-exec and set up for requests and replies (no Nagle, keep-alive).
//
// Threads: the main thread. Fails: the constructor throws std::system_error that names the
//          address. A Unix socket left by a server that died is replaced, one that answers is not;
//          the socket's file is removed by the destructor.
class Listener {
  public:
    using Accepted = std::function<void(UniqueFd socket, std::string peer)>;

    Listener(event_base* base, ListenAddress address, Accepted accepted);
    // A socket that listens already; whoever opened it removes its file.
    Listener(event_base* base, UniqueFd listening, Accepted accepted);
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    ~Listener();

    void stop_accepting();
    // As bound: a port given as 0 is known by now.
    [[nodiscard]] std::vector<std::string> addresses() const;
    // As one would connect to it: `nbd://HOST:PORT/NAME` or `nbd+unix:///NAME?socket=PATH`.
    [[nodiscard]] std::vector<std::string> uris(const std::string& export_name) const;

  private:
    struct ListenerFree {
        void operator()(evconnlistener* listener) const noexcept { evconnlistener_free(listener); }
    };
    Listener(Accepted accepted, ListenAddress address, event_base* base);
    void listen_unix(event_base* base);
    void listen_tcp(event_base* base);
    void add(event_base* base, UniqueFd socket);
    // After a failed accept: what it lacked (descriptors) others may give back.
    void pause();
    void resume();
    void accept(evutil_socket_t socket, sockaddr* peer);

    const ListenAddress address_;
    const Accepted accepted_;
    std::vector<std::string> bound_;  // HOST:PORT as bound
    std::vector<std::unique_ptr<evconnlistener, ListenerFree>> listeners_;
    const EventPointer resume_;
    bool made_socket_file_ = false;
};

}  // namespace nbdm
