// SPDX-License-Identifier: Apache-2.0
#include "client/time_window.h"

#include <array>
#include <cstdio>

namespace nbdm {

namespace {

// "HH:MM".
std::optional<std::chrono::minutes> parse_time(std::string_view text) {
    const auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '9'; };
    if (text.size() != 5 || text[2] != ':' || !digit(0) || !digit(1) || !digit(3) || !digit(4)) {
        return std::nullopt;
    }
    const int hours = 10 * (text[0] - '0') + (text[1] - '0');
    const int minutes = 10 * (text[3] - '0') + (text[4] - '0');
    if (hours > 23 || minutes > 59) {
        return std::nullopt;
    }
    return std::chrono::minutes(60 * hours + minutes);
}

}  // namespace

std::optional<TimeWindow> TimeWindow::parse(std::string_view text) {
    constexpr std::size_t kTimeBytes = 5;
    if (text.size() != 2 * kTimeBytes + 1 || text[kTimeBytes] != '-') {
        return std::nullopt;
    }
    const auto begin = parse_time(text.substr(0, kTimeBytes));
    const auto end = parse_time(text.substr(kTimeBytes + 1));
    if (!begin || !end || *begin == *end) {
        return std::nullopt;
    }
    return TimeWindow{.begin = *begin, .end = *end};
}

std::string TimeWindow::text() const {
    std::array<char, 16> buffer{};
    std::snprintf(buffer.data(), buffer.size(), "%02d:%02d-%02d:%02d",
                  static_cast<int>(begin.count() / 60), static_cast<int>(begin.count() % 60),
                  static_cast<int>(end.count() / 60), static_cast<int>(end.count() % 60));
    return buffer.data();
}

bool TimeWindow::contains(std::time_t now) const {
    std::tm wall{};
    ::localtime_r(&now, &wall);
    const std::chrono::minutes time(60 * wall.tm_hour + wall.tm_min);
    return begin < end ? begin <= time && time < end : begin <= time || time < end;
}

}  // namespace nbdm
