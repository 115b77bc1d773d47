// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "iothread/range.h"
#include "tests/fuzz/speaker.h"

namespace nbdm::fuzz {

// The second part of a conversation: requests, with extended headers or without.
class RequestSpeaker : private Speaker {
  public:
    RequestSpeaker(Random& random, const Manners& manners, Conversation& made, bool extended)
        : Speaker(random, manners, made), extended_(extended) {}

    void say_request();
    void say_goodbye();

  private:
    void say_header(const Said& said);
    [[nodiscard]] Bytes compact_payload(Said& said);
    [[nodiscard]] Bytes extended_payload(Said& said);
    [[nodiscard]] bool is_right(const Said& said, bool has_payload) const;
    [[nodiscard]] wire::Command some_command();
    [[nodiscard]] std::uint64_t edge();
    [[nodiscard]] Range some_place();

    const bool extended_;
};

}  // namespace nbdm::fuzz
