// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace nbdm {

// One line to standard error for each event, with systemd's priority prefix when the journal reads
// it. The minimum level is the program's only global.
//
// Threads: any; a line is one write.
enum class LogLevel { error, warning, info, debug };

void set_log_level(LogLevel least_important) noexcept;

void log_error(std::string_view line);
void log_warning(std::string_view line);
void log_info(std::string_view line);
void log_debug(std::string_view line);

}  // namespace nbdm
