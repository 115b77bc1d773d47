// SPDX-License-Identifier: Apache-2.0
#include "client/watch/terminal.h"

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstdlib>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <sys/ioctl.h>

#include "iothread/check.h"

namespace nbdm {

namespace {

// ECMA-48 and DEC private modes, as every terminal in use understands them: another screen
// (1049), the cursor (25), erase (J, K), go to (H).
constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l";
// A terminal without another screen is left with an empty one.
constexpr std::string_view kLeave = "\x1b[0m\x1b[2J\x1b[H\x1b[?25h\x1b[?1049l";
constexpr std::string_view kErase = "\x1b[2J";
constexpr std::string_view kEraseToEnd = "\x1b[K";

// How long a terminal that takes nothing is waited for.
constexpr int kWriteLimitMs = 500;

std::string go_to(std::size_t row) {
    return "\x1b[" + std::to_string(row + 1) + ";1H";
}

const char* variable(const char* name) {
    return std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
}

bool locale_is_utf8() {
    const locale_t locale = ::newlocale(LC_CTYPE_MASK, "", locale_t{});
    if (locale == locale_t{}) {
        return false;
    }
    const bool utf8 = std::string_view(::nl_langinfo_l(CODESET, locale)) == "UTF-8";
    ::freelocale(locale);
    return utf8;
}

}  // namespace

TerminalClaims claims_of_environment() {
    return {.term = variable("TERM"),
            .colorterm = variable("COLORTERM"),
            .no_color = variable("NO_COLOR"),
            .utf8 = locale_is_utf8()};
}

bool has_screen(const TerminalClaims& claims) {
    const std::string_view term = claims.term != nullptr ? claims.term : "";
    return !term.empty() && term != "dumb" && term != "unknown";
}

TextStyle style_for(const TerminalClaims& claims) {
    const std::string_view term = claims.term != nullptr ? claims.term : "";
    const auto is_set = [](const char* value) { return value != nullptr && *value != '\0'; };
    TextStyle style;
    // The kernel's console has a font of 256 characters.
    style.unicode = claims.utf8 && term != "linux";
    if (is_set(claims.no_color) || !has_screen(claims) || term.starts_with("vt")) {
        style.colours = TextStyle::Colours::none;
    } else if (is_set(claims.colorterm) || term.find("256color") != std::string_view::npos ||
               term.find("direct") != std::string_view::npos) {
        style.colours = TextStyle::Colours::many;
    } else {
        style.colours = TextStyle::Colours::basic;
    }
    return style;
}

std::string screen_update(const std::vector<std::string>& before,
                          const std::vector<std::string>& after) {
    std::string update;
    for (std::size_t row = 0; row < std::max(before.size(), after.size()); ++row) {
        const std::string_view old = row < before.size() ? before[row] : std::string_view();
        const std::string_view now = row < after.size() ? after[row] : std::string_view();
        if (old != now) {
            update.append(go_to(row)).append(now).append(kEraseToEnd);
        }
    }
    return update;
}

// The terminal opened once more: that it does not block is no matter of others who use it.
Terminal::Terminal()
    : output_(::open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)),
      has_keys_(::isatty(STDIN_FILENO) == 1) {}

Terminal::~Terminal() {
    leave();
}

bool Terminal::takes_output(int limit_ms) const noexcept {
    pollfd output{STDOUT_FILENO, POLLOUT, 0};
    return ::poll(&output, 1, limit_ms) == 1 && (output.revents & POLLOUT) != 0;
}

int Terminal::write_all(std::string_view text) const noexcept {
    const int fd = output_.valid() ? output_.get() : STDOUT_FILENO;
    while (!text.empty()) {
        const ssize_t written = ::write(fd, text.data(), text.size());
        if (written >= 0) {
            text.remove_prefix(static_cast<std::size_t>(written));
        } else if (errno != EINTR && (errno != EAGAIN || !takes_output(kWriteLimitMs))) {
            return errno;
        }
    }
    return 0;
}

bool Terminal::in_foreground() {
    const pid_t group = ::tcgetpgrp(STDOUT_FILENO);
    return group < 0 || group == ::getpgrp();
}

void Terminal::enter() {
    if (std::exchange(entered_, true)) {
        return;
    }
    known_ = false;
    if (has_keys_) {
        // In the background they would be those of the shell, which edits its line.
        if (!before_) {
            termios now{};
            check_errno(::tcgetattr(STDIN_FILENO, &now), "cannot ask the terminal for its modes");
            before_ = now;
        }
        termios modes = *before_;
        modes.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
        // Otherwise Ctrl-C and Ctrl-Z throw away what is on its way, within an escape sequence too.
        modes.c_lflag |= NOFLSH;
        modes.c_cc[VMIN] = 0;
        modes.c_cc[VTIME] = 0;
        check_errno(::tcsetattr(STDIN_FILENO, TCSANOW, &modes), "cannot set the terminal's modes");
    }
    if (const int error = write_all(kEnter); error != 0) {
        throw errno_error(error, "cannot write to the terminal");
    }
}

void Terminal::leave() noexcept {
    // In the background it is the shell's, which has given it the modes that it wants.
    if (!std::exchange(entered_, false) || !in_foreground()) {
        return;
    }
    // A terminal that is gone has nothing to be restored.
    if (takes_output(kWriteLimitMs)) {
        [[maybe_unused]] const int error = write_all(kLeave);
    }
    if (before_) {
        ::tcsetattr(STDIN_FILENO, TCSANOW, &*before_);
    }
}

Terminal::Size Terminal::size() {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0) {
        return {};
    }
    return {.columns = size.ws_col, .rows = size.ws_row};
}

std::optional<char> Terminal::read_key() {
    char key = 0;
    const ssize_t count = ::read(STDIN_FILENO, &key, 1);
    // Another may have taken it meanwhile.
    const bool goes_on = count == 1 || (count < 0 && (errno == EINTR || errno == EAGAIN));
    return goes_on ? std::optional(key) : std::nullopt;
}

void Terminal::show(const std::vector<std::string>& lines) {
    std::string update;
    if (!known_) {
        shown_.clear();
        update = kErase;
    }
    update += screen_update(shown_, lines);
    if (update.empty() || !takes_output(0)) {
        return;
    }
    const int error = write_all(update);
    if (error != 0 && error != EAGAIN) {
        throw errno_error(error, "cannot write to the terminal");
    }
    known_ = error == 0;
    shown_ = lines;
}

}  // namespace nbdm
