// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "server/nbd_wire.h"

namespace nbdm::fuzz {

using Random = std::mt19937_64;
using Bytes = std::vector<std::byte>;

// A whole number from 0 to `below` - 1.
[[nodiscard]] std::uint64_t pick(Random& random, std::uint64_t below);
// True once in `times`.
[[nodiscard]] bool one_in(Random& random, unsigned times);

// One request as it was said. What it asks for need not make sense.
struct Said {
    std::uint64_t cookie = 0;
    wire::Command command{};  // or none that is known
    std::uint16_t flags = 0;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::byte fill{};           // of the data that a write brings
    bool must_succeed = false;  // nothing at all is wrong with it
};

// Everything one client says from its flags to its end.
struct Conversation {
    Bytes bytes;
    // In step to its end, so that what comes back is known to belong to it: what is asked for may
    // be nonsense, but is said as it should be. Only then is the rest of this right.
    bool honest = false;
    std::string export_name;
    std::vector<wire::Option> options;
    std::vector<Said> requests;
    bool goodbye = false;  // NBD_CMD_DISC comes last: everything before it is owed an answer
};

struct Manners {
    std::uint64_t disk_bytes = 0;
    bool honest = false;
    // Asks for much at a time, and may leave in the middle of a large request.
    bool greedy = false;
};

// Mostly well-formed options and requests with numbers from the edges of their types and of the
// disk. Who need not be honest lies about lengths now and then, and in half of the conversations
// bytes are then changed, dropped, repeated or cut off.
//
// The exports are those of tests/fuzz/connection_fuzz.cpp: "disk", "fixed" and the empty name.
[[nodiscard]] Conversation make_conversation(Random& random, const Manners& manners);

}  // namespace nbdm::fuzz
