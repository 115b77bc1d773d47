// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "server/nbd_wire.h"
#include "tests/fuzz/conversation.h"

namespace nbdm::fuzz {

// Adds to a conversation; all outlive it. What both parts of one have in common.
class Speaker {
  public:
    Speaker(Random& random, const Manners& manners, Conversation& made)
        : random_(random), manners_(manners), made_(made) {}

  protected:
    [[nodiscard]] std::uint64_t pick(std::uint64_t below) { return fuzz::pick(random_, below); }
    [[nodiscard]] bool one_in(unsigned times) { return fuzz::one_in(random_, times); }
    // Whether to say now what is not so.
    [[nodiscard]] bool lies(unsigned times) { return !made_.honest && one_in(times); }
    template <typename T, std::size_t N>
    const T& one_of(const std::array<T, N>& choices) {
        return choices[pick(N)];
    }
    template <typename T>
    static void append(Bytes& to, const T& value) {
        const auto bytes = wire::bytes_of(value);
        to.insert(to.end(), bytes.begin(), bytes.end());
    }

    Random& random_;
    const Manners& manners_;
    Conversation& made_;
};

}  // namespace nbdm::fuzz
