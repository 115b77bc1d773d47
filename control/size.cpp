// SPDX-License-Identifier: Apache-2.0
#include "control/size.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

namespace nbdm {

std::optional<std::uint64_t> parse_size(std::string_view text) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end == text.data()) {
        return std::nullopt;
    }
    std::string unit;
    for (const char c : text.substr(static_cast<std::size_t>(end - text.data()))) {
        unit.push_back(static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
    }
    constexpr std::string_view kPrefixes = "KMGT";
    unsigned shift = 0;
    if (const std::size_t prefix = kPrefixes.find(unit.empty() ? '-' : unit[0]);
        prefix != std::string_view::npos) {
        shift = 10 * (static_cast<unsigned>(prefix) + 1);
        unit.erase(0, 1);
        if (unit == "IB") {
            unit.erase(0, 1);
        }
    }
    if (!unit.empty() && unit != "B") {
        return std::nullopt;
    }
    constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (number > kMax >> shift) {
        return std::nullopt;
    }
    return number << shift;
}

std::string format_size(double bytes) {
    constexpr std::array<const char*, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    std::size_t unit = 0;
    while (bytes >= 1023.95 && unit + 1 < kUnits.size()) {
        bytes /= 1024;
        ++unit;
    }
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", bytes, kUnits[unit]);
    return text.data();
}

std::string format_time(double seconds) {
    const long long whole = std::llround(seconds);
    if (whole < 60) {
        return std::to_string(whole) + " s";
    }
    if (whole < 3600) {
        return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
    }
    return std::to_string(whole / 3600) + " h " + std::to_string(whole % 3600 / 60) + " min";
}

}  // namespace nbdm
