// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nbdm {

// Sizes and times as people read and write them. Threads: any.

// SIZE and RATE as people write them: a whole number of bytes, or of K, M, G, T (powers of 1024;
// lower case, "KiB" and "B" are understood too). Nothing for anything else and for what does not
// fit in 63 bits.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text);

// "1.5 GiB", "300 B"; for people.
[[nodiscard]] std::string format_size(double bytes);
// "1 min 15 s", "3 h 5 min"; for people.
[[nodiscard]] std::string format_time(double seconds);

}  // namespace nbdm
