// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>

namespace nbdm {

// `when` in UTC, formatted as strftime(3) does. Threads: any.
[[nodiscard]] std::string utc_text(std::chrono::system_clock::time_point when,
                                   const char* format = "%Y-%m-%dT%H:%M:%SZ");

}  // namespace nbdm
