// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace nbdm {

// One line to standard error for each event, with systemd's priority prefix when the journal reads
// it. The minimum level and what is drawn on the terminal are the program's only globals.
//
// Threads: any; a line is one write.
enum class LogLevel { error, warning, info, debug };

void set_log_level(LogLevel least_important) noexcept;

void log_error(std::string_view line);
void log_warning(std::string_view line);
void log_info(std::string_view line);
void log_debug(std::string_view line);

// On a terminal: a line that is drawn again and again. What is logged meanwhile takes its place.
void draw_line(std::string_view line) noexcept;
// It stays as it is, and what comes next begins below it. Nothing happens when none is drawn.
void leave_drawn_line() noexcept;

}  // namespace nbdm
