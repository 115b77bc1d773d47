// SPDX-License-Identifier: Apache-2.0
#include "control/log.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <string>
#include <unistd.h>
#include <utility>

#include <sys/stat.h>

namespace nbdm {

namespace {

std::atomic<LogLevel> least_important_level{LogLevel::info};

constexpr const char* kFirstColumn = "\r";
constexpr const char* kEraseRest = "\x1b[K";

std::mutex terminal_mutex;  // guards the order of writes to standard error, and what is below
bool line_drawn = false;

void write_out(std::string_view text) noexcept {
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

// systemd.exec(5): the variable names the journal's stream, which a child of a service and one
// whose output was redirected do not write to.
bool writes_to_journal() {
    const char* stream =
        ::getenv("JOURNAL_STREAM");  // NOLINT(concurrency-mt-unsafe): nobody sets it
    struct stat status {};
    return stream != nullptr && ::fstat(STDERR_FILENO, &status) == 0 &&
           stream == std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
}

void log(LogLevel level, std::string_view line) {
    if (level > least_important_level.load(std::memory_order_relaxed)) {
        return;
    }
    // sd-daemon(3): <3> error, <4> warning, <6> info, <7> debug.
    static const bool journal = writes_to_journal();
    constexpr std::array<const char*, 4> kPriorities = {"<3>", "<4>", "<6>", "<7>"};
    constexpr std::array<const char*, 4> kWords = {"error: ", "warning: ", "", ""};
    const auto index = static_cast<std::size_t>(level);
    std::string text = journal ? kPriorities[index] : kWords[index];
    text.append(line);
    // A peer may have put anything into a name: one event stays one line.
    std::replace_if(
        text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
    text.push_back('\n');
    const std::lock_guard lock(terminal_mutex);
    if (std::exchange(line_drawn, false)) {
        text.insert(0, kFirstColumn + std::string(kEraseRest));
    }
    write_out(text);
}

}  // namespace

void set_log_level(LogLevel least_important) noexcept {
    least_important_level.store(least_important, std::memory_order_relaxed);
}

void log_error(std::string_view line) {
    log(LogLevel::error, line);
}
void log_warning(std::string_view line) {
    log(LogLevel::warning, line);
}
void log_info(std::string_view line) {
    log(LogLevel::info, line);
}
void log_debug(std::string_view line) {
    log(LogLevel::debug, line);
}

void draw_line(std::string_view line) noexcept {
    const std::lock_guard lock(terminal_mutex);
    line_drawn = true;
    write_out(kFirstColumn + std::string(line) + kEraseRest);
}

void leave_drawn_line() noexcept {
    const std::lock_guard lock(terminal_mutex);
    if (std::exchange(line_drawn, false)) {
        write_out("\n");
    }
}

}  // namespace nbdm
