// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>

namespace nbdm {

// A stretch of every day, by the clock on the wall, in which a job may work; it may cross midnight.
// When the clocks are put forward, what does not exist of it is left out; when they are put back,
// what exists twice counts twice.
struct TimeWindow {
    std::chrono::minutes begin{0};  // since midnight
    std::chrono::minutes end{0};    // not included; before `begin`: on the next day

    // "HH:MM-HH:MM", two different times. Nothing for anything else.
    [[nodiscard]] static std::optional<TimeWindow> parse(std::string_view text);
    [[nodiscard]] std::string text() const;

    // In the process's time zone.
    [[nodiscard]] bool contains(std::time_t now) const;
};

}  // namespace nbdm
