// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "iothread/unique_fd.h"
#include "tests/fuzz/content.h"
#include "tests/fuzz/conversation.h"
#include "tests/fuzz/listener.h"

namespace nbdm::fuzz {

// How a client behaves, besides what it says.
struct Temper {
    unsigned rests = 0;    // how often, at most
    bool lingers = false;  // rests when everything is said
    bool flighty = false;  // may leave at any moment
    bool stays = false;    // having said goodbye, waits with both its hands on the socket
};

// One client: says its conversation in pieces of any size, takes what is answered, and waits for
// the server to close. Now and then it may rest, and neither says nor takes anything.
class Client {
  public:
    // `content` outlives it.
    Client(UniqueFd socket, Conversation conversation, Content& content, Temper temper,
           Random random);

    [[nodiscard]] int fd() const noexcept { return socket_.get(); }
    // What it waits for, as poll(2) has it.
    [[nodiscard]] short wanted() const noexcept;
    // Throws std::runtime_error when an answer is wrong.
    void move(short events);
    [[nodiscard]] bool over() const noexcept { return !socket_.valid(); }
    [[nodiscard]] bool rests() const noexcept { return resting_; }
    void wake() noexcept { resting_ = false; }

  private:
    void say();
    void listen();

    UniqueFd socket_;
    const Conversation conversation_;
    Random random_;
    Listener listener_;
    Temper temper_;
    std::span<const std::byte> to_say_;
    bool saying_ = true;
    bool resting_ = false;
};

// All at once, until the last one is over; `look` is called again and again meanwhile. Who rests
// goes on when nothing else moves. Throws std::runtime_error when it is not over within `limit`.
void talk(const std::vector<std::unique_ptr<Client>>& clients, std::chrono::seconds limit,
          const std::function<void()>& look);

}  // namespace nbdm::fuzz
