// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace nbdm::fuzz {

using Random = std::mt19937_64;
using Bytes = std::vector<std::byte>;

// A whole number from 0 to `below` - 1.
[[nodiscard]] std::uint64_t pick(Random& random, std::uint64_t below);
// True once in `times`.
[[nodiscard]] bool one_in(Random& random, unsigned times);

// Everything one client says from its flags to its end: mostly well-formed options and requests
// with numbers from the edges of their types and of the disk; in half of the conversations bytes
// are then changed, dropped, repeated or cut off.
//
// The exports are those of tests/fuzz/connection_fuzz.cpp: "disk", "fixed" and the empty name.
[[nodiscard]] Bytes make_conversation(Random& random, std::uint64_t disk_bytes);

}  // namespace nbdm::fuzz
