// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "iothread/unique_fd.h"
#include "tests/fuzz/content.h"
#include "tests/fuzz/conversation.h"
#include "tests/fuzz/listener.h"

namespace nbdm::fuzz {

// One client: says its conversation in pieces of any size, takes what is answered, and waits for
// the server to close.
class Client {
  public:
    // `content` outlives it.
    Client(UniqueFd socket, Conversation conversation, Content& content, Random random);

    [[nodiscard]] int fd() const noexcept { return socket_.get(); }
    // What it waits for, as poll(2) has it.
    [[nodiscard]] short wanted() const noexcept;
    // Throws std::runtime_error when an answer is wrong.
    void move(short events);
    [[nodiscard]] bool over() const noexcept { return !socket_.valid(); }

  private:
    void say();
    void listen();

    UniqueFd socket_;
    const Conversation conversation_;
    Random random_;
    Listener listener_;
    std::span<const std::byte> to_say_;
    bool saying_ = true;
};

// All at once, until the last one is over. Throws std::runtime_error when that is not within
// `limit`.
void talk(const std::vector<std::unique_ptr<Client>>& clients, std::chrono::seconds limit);

}  // namespace nbdm::fuzz
