// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <poll.h>
#include <stdexcept>
#include <utility>

#include <sys/socket.h>

namespace nbdm::fuzz {

namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Client::Client(UniqueFd socket, Conversation conversation, Content& content, Random random)
    : socket_(std::move(socket)),
      conversation_(std::move(conversation)),
      random_(random),
      listener_(conversation_, content),
      to_say_(conversation_.bytes) {}

short Client::wanted() const noexcept {
    return static_cast<short>(POLLIN | (saying_ ? POLLOUT : 0));
}

void Client::move(short events) {
    if (saying_ && (events & POLLOUT) != 0) {
        say();
    }
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0) {
        listen();
    }
}

void Client::say() {
    const std::size_t part = std::min<std::size_t>(to_say_.size(), 1 + pick(random_, 50'000));
    const ssize_t sent = ::send(fd(), to_say_.data(), part, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
        to_say_ = to_say_.subspan(static_cast<std::size_t>(sent));
    } else if (sent < 0 && errno != EAGAIN) {
        to_say_ = {};  // nobody hears it any more
    }
    if (to_say_.empty()) {
        saying_ = false;
        ::shutdown(fd(), SHUT_WR);
    }
}

void Client::listen() {
    static std::array<std::byte, 65536> heard;
    const ssize_t got = ::recv(fd(), heard.data(), heard.size(), MSG_DONTWAIT);
    if (got > 0) {
        listener_.hear(std::span(heard).first(static_cast<std::size_t>(got)));
    }
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        listener_.hear_end();
        socket_ = {};
    }
}

void talk(const std::vector<std::unique_ptr<Client>>& clients, std::chrono::seconds limit) {
    const Clock::time_point deadline = Clock::now() + limit;
    for (;;) {
        std::vector<pollfd> wanted;
        std::vector<Client*> talking;
        for (const auto& client : clients) {
            if (!client->over()) {
                wanted.push_back({client->fd(), client->wanted(), 0});
                talking.push_back(client.get());
            }
        }
        if (talking.empty()) {
            return;
        }
        if (::poll(wanted.data(), wanted.size(), 100) <= 0 && Clock::now() > deadline) {
            throw std::runtime_error("a connection does not end");
        }
        for (std::size_t i = 0; i < talking.size(); ++i) {
            talking[i]->move(wanted[i].revents);
        }
    }
}

}  // namespace nbdm::fuzz
