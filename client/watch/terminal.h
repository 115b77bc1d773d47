// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <termios.h>
#include <vector>

#include "client/watch/styled_line.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// What a terminal is said to be; null: not said.
struct TerminalClaims {
    const char* term = nullptr;       // TERM
    const char* colorterm = nullptr;  // COLORTERM
    const char* no_color = nullptr;   // NO_COLOR
    bool utf8 = false;                // the locale's characters
};
[[nodiscard]] TerminalClaims claims_of_environment();
// It knows where its cursor is.
[[nodiscard]] bool has_screen(const TerminalClaims& claims);
[[nodiscard]] TextStyle style_for(const TerminalClaims& claims);

// Turns one screen into another: the lines that differ, each where it belongs.
[[nodiscard]] std::string screen_update(const std::vector<std::string>& before,
                                        const std::vector<std::string>& after);

// The terminal on standard output as a screen of its own: another one than what was there before,
// without a cursor; keys are read at once and not shown. All is as it was when it is left.
//
// Threads: one at a time. Fails: std::system_error, when the terminal is gone.
// Needs:   the program does not end while it is entered but by an exception: signals are queued.
class Terminal {
  public:
    Terminal();
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;
    ~Terminal();  // leaves

    // Others do not use it now: it may be entered.
    [[nodiscard]] static bool in_foreground();
    // Does nothing when it is entered already.
    void enter();
    void leave() noexcept;
    // Others have used it meanwhile: it has to be entered again.
    void forget() noexcept { entered_ = false; }

    struct Size {
        std::size_t columns = 80;
        std::size_t rows = 24;
    };
    [[nodiscard]] static Size size();
    // Whether keys can be read.
    [[nodiscard]] bool has_keys() const noexcept { return has_keys_; }
    // The next key pressed, which has been waited for; nothing: there will be none any more.
    [[nodiscard]] std::optional<char> read_key();

    // At most as many lines as there are rows. While the terminal takes nothing (Ctrl-S, a stalled
    // connection) nothing is shown, and nobody waits for long.
    void show(const std::vector<std::string>& lines);
    // It has another size now: what is on the screen is not known.
    void resized() noexcept { known_ = false; }

  private:
    // Returns an errno; EAGAIN: the terminal has not taken all of it in time.
    [[nodiscard]] int write_all(std::string_view text) const noexcept;
    [[nodiscard]] bool takes_output(int limit_ms) const noexcept;

    const UniqueFd output_;  // that does not block; none: standard output, which may
    bool has_keys_;
    bool entered_ = false;
    bool known_ = false;             // what is on the screen
    std::optional<termios> before_;  // its modes, when it was entered first
    std::vector<std::string> shown_;
};

}  // namespace nbdm
