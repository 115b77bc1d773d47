// SPDX-License-Identifier: Apache-2.0
#include "control/utc.h"

#include <array>
#include <ctime>

namespace nbdm {

std::string utc_text(std::chrono::system_clock::time_point when, const char* format) {
    const std::time_t seconds = std::chrono::system_clock::to_time_t(when);
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    std::array<char, 64> text{};
    return {text.data(), std::strftime(text.data(), text.size(), format, &parts)};
}

}  // namespace nbdm
