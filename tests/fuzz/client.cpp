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

// Nothing has moved when nothing did for so long.
constexpr int kQuietMs = 3;

}  // namespace

Client::Client(UniqueFd socket, Conversation conversation, Content& content, Temper temper,
               Random random)
    : socket_(std::move(socket)),
      conversation_(std::move(conversation)),
      random_(random),
      listener_(conversation_, content),
      temper_(temper),
      to_say_(conversation_.bytes) {}

short Client::wanted() const noexcept {
    return static_cast<short>(POLLIN | (saying_ ? POLLOUT : 0));
}

void Client::move(short events) {
    // Conversations take some dozen moves.
    if (temper_.rests > 0 && one_in(random_, 20)) {
        --temper_.rests;
        resting_ = true;
        return;
    }
    if (temper_.flighty && one_in(random_, 100)) {
        socket_ = {};
        return;
    }
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
    if (sent >= 0) {
        to_say_ = to_say_.subspan(static_cast<std::size_t>(sent));
    } else if (errno != EAGAIN) {
        to_say_ = {};  // nobody hears it any more
    }
    if (to_say_.empty() && temper_.lingers) {
        temper_.lingers = false;
        resting_ = true;
    } else if (to_say_.empty()) {
        saying_ = false;
        if (!temper_.stays || !conversation_.goodbye) {
            ::shutdown(fd(), SHUT_WR);
        }
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

void talk(const std::vector<std::unique_ptr<Client>>& clients, std::chrono::seconds limit,
          const std::function<void()>& look) {
    const Clock::time_point deadline = Clock::now() + limit;
    for (;;) {
        std::vector<pollfd> wanted;
        std::vector<Client*> talking;
        Client* resting = nullptr;
        for (const auto& client : clients) {
            if (client->over()) {
                continue;
            }
            if (client->rests()) {
                resting = client.get();
                continue;
            }
            wanted.push_back({client->fd(), client->wanted(), 0});
            talking.push_back(client.get());
        }
        if (talking.empty() && resting == nullptr) {
            return;
        }
        look();
        if (::poll(wanted.data(), wanted.size(), kQuietMs) <= 0 && resting != nullptr) {
            resting->wake();
        }
        if (Clock::now() > deadline) {
            throw std::runtime_error("a connection does not end");
        }
        for (std::size_t i = 0; i < talking.size(); ++i) {
            if (wanted[i].revents != 0) {
                talking[i]->move(wanted[i].revents);
            }
        }
    }
}

}  // namespace nbdm::fuzz
