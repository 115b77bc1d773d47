// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string_view>

#include "control/output_thread.h"

namespace nbdm {

// One line to standard error for each event, with systemd's priority prefix when the journal reads
// it. The minimum level, what is drawn on the terminal and the log's thread are the program's only
// globals.
//
// Threads: any; a line is one write. Who logs waits for whoever reads standard error only while
//          there is no LogThread.
enum class LogLevel { error, warning, info, debug };

void set_log_level(LogLevel least_important) noexcept;

void log_error(std::string_view line);
void log_warning(std::string_view line);
void log_info(std::string_view line);
void log_debug(std::string_view line);
// What is no event, and is said at every level: as it is.
void say_line(std::string_view line);

// On a terminal: a line that is drawn again and again. What is logged meanwhile takes its place.
// Left out while there is something before it that nobody has read.
void draw_line(std::string_view line) noexcept;
// It stays as it is, and what comes next begins below it. Nothing happens when none is drawn.
void leave_drawn_line() noexcept;

// While it lives, what is said here is written by a thread. There is one at most.
class LogThread {
  public:
    LogThread();
    LogThread(const LogThread&) = delete;
    LogThread& operator=(const LogThread&) = delete;
    ~LogThread();  // waits a moment for the reader of what was said last

    // As OutputThread's.
    [[nodiscard]] bool flush(std::chrono::milliseconds limit) const;

  private:
    OutputThread thread_;
};

}  // namespace nbdm
