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

std::mutex terminal_mutex;  // guards the order of what is said, and what is below
bool line_drawn = false;
OutputThread* log_thread = nullptr;

void write_out(std::string text) {
    if (log_thread != nullptr) {
        log_thread->write(std::move(text));
        return;
    }
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

// Takes the place of the drawn line, if there is one.
void write_line(std::string text) {
    text.push_back('\n');
    const std::lock_guard lock(terminal_mutex);
    if (std::exchange(line_drawn, false)) {
        text.insert(0, kFirstColumn + std::string(kEraseRest));
    }
    write_out(std::move(text));
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

const char* head_of(LogLevel level) {
    // sd-daemon(3): <3> error, <4> warning, <6> info, <7> debug.
    static const bool journal = writes_to_journal();
    constexpr std::array<const char*, 4> kPriorities = {"<3>", "<4>", "<6>", "<7>"};
    constexpr std::array<const char*, 4> kWords = {"error: ", "warning: ", "", ""};
    const auto index = static_cast<std::size_t>(level);
    return journal ? kPriorities[index] : kWords[index];
}

void log(LogLevel level, std::string_view line) {
    if (level > least_important_level.load(std::memory_order_relaxed)) {
        return;
    }
    std::string text = head_of(level);
    text.append(line);
    // A peer may have put anything into a name: one event stays one line.
    std::replace_if(
        text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
    write_line(std::move(text));
}

std::string notice(std::size_t dropped) {
    return head_of(LogLevel::warning) + std::to_string(dropped) +
           (dropped == 1 ? " line was" : " lines were") +
           " left out here: nobody had read those before\n";
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

void say_line(std::string_view line) {
    write_line(std::string(line));
}

void draw_line(std::string_view line) noexcept {
    const std::lock_guard lock(terminal_mutex);
    if (log_thread == nullptr || log_thread->is_idle()) {
        line_drawn = true;
        write_out(kFirstColumn + std::string(line) + kEraseRest);
    }
}

void leave_drawn_line() noexcept {
    const std::lock_guard lock(terminal_mutex);
    if (std::exchange(line_drawn, false)) {
        write_out("\n");
    }
}

LogThread::LogThread() : thread_(STDERR_FILENO, notice) {
    const std::lock_guard lock(terminal_mutex);
    log_thread = &thread_;
}

LogThread::~LogThread() {
    constexpr std::chrono::seconds kLastMoment(1);
    [[maybe_unused]] const bool all_read = flush(kLastMoment);
    const std::lock_guard lock(terminal_mutex);
    log_thread = nullptr;
}

bool LogThread::flush(std::chrono::milliseconds limit) const {
    return thread_.flush(limit);
}

}  // namespace nbdm
