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
    // As many as a connection may have under way, and some more.
    void say_many_reads();
    // Its data does not come to an end, so that it is never done.
    void say_half_a_write();
    void say_goodbye();

  private:
    void say_header(const Said& said);
    [[nodiscard]] Bytes compact_payload(Said& said);
    [[nodiscard]] Bytes extended_payload(Said& said);
    [[nodiscard]] bool is_right(const Said& said, bool has_payload) const;
    [[nodiscard]] wire::Command some_command();
    [[nodiscard]] std::uint64_t edge();
    [[nodiscard]] std::uint64_t some_length();
    [[nodiscard]] Range some_place();

    const bool extended_;
    // Of what is said and of what is asked for: enough to run short of memory, and no more, since
    // it takes time.
    std::uint64_t payload_left_ = std::uint64_t{12} << 20;
    std::uint64_t answers_left_ = std::uint64_t{48} << 20;
};

}  // namespace nbdm::fuzz
