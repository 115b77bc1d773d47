// SPDX-License-Identifier: Apache-2.0
#include "client/watch/watch.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <ctime>
#include <iostream>
#include <optional>
#include <poll.h>
#include <set>
#include <unistd.h>
#include <vector>

#include "client/watch/job_line.h"
#include "client/watch/jobs_page.h"
#include "client/watch/signal_queue.h"
#include "client/watch/terminal.h"
#include "client/watch/watched_jobs.h"

namespace nbdm {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPageInterval{250};
constexpr milliseconds kLineInterval{1000};

std::string time_of_day() {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    ::localtime_r(&now, &local);
    std::array<char, 16> text{};
    std::strftime(text.data(), text.size(), "%H:%M:%S", &local);
    return text.data();
}

// For poll().
int milliseconds_until(Clock::time_point end) {
    const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
    return static_cast<int>(std::max<std::int64_t>(left.count(), 0));
}

// A session at a terminal.
class WatchSession {
  public:
    WatchSession(WatchedJobs& jobs, const TextStyle& style) : jobs_(jobs), style_(style) {}

    // Returns the signal that ends the program, or 0.
    [[nodiscard]] int run();

  private:
    using Inputs = std::array<pollfd, 2>;  // signals, keys

    void draw();
    [[nodiscard]] std::vector<std::string> page(const PageFormat& format);
    [[nodiscard]] PageFormat format() const;
    [[nodiscard]] Inputs inputs() const;
    // A signal or a key waits.
    [[nodiscard]] bool asked_for() const;
    // Until there is something new to be shown, or somebody leaves.
    void wait_until(Clock::time_point end);
    void handle_signals();
    void handle_keys();

    WatchedJobs& jobs_;
    const TextStyle style_;
    // Before the terminal: nothing must end the program while that is entered.
    SignalQueue signals_{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};
    Terminal terminal_;
    bool keys_ = terminal_.has_keys();
    std::size_t chosen_ = 0;  // of the jobs
    bool leaves_ = false;
    int signal_ = 0;
};

int WatchSession::run() {
    while (!leaves_) {
        const Clock::time_point next = Clock::now() + kPageInterval;
        jobs_.look([this] { return asked_for(); });
        if (jobs_.all_are_over()) {
            break;
        }
        draw();
        wait_until(next);
    }
    terminal_.leave();
    // The end stays to be read.
    if (jobs_.all_are_over()) {
        PageFormat last = format();
        last.rows -= std::min<std::size_t>(last.rows, 1);  // the shell's prompt
        for (const std::string& line : page(last)) {
            std::cout << line << '\n';
        }
        std::cout << std::flush;
    }
    return signal_;
}

PageFormat WatchSession::format() const {
    const Terminal::Size size = Terminal::size();
    return {.columns = size.columns, .rows = size.rows, .style = style_, .corner = {}, .foot = {}};
}

std::vector<std::string> WatchSession::page(const PageFormat& format) {
    chosen_ %= jobs_.list().size();
    return draw_jobs_page(jobs_.list(), chosen_, format);
}

void WatchSession::draw() {
    if (!Terminal::in_foreground()) {
        return;
    }
    terminal_.enter();
    PageFormat full = format();
    full.corner = time_of_day();
    full.foot = !keys_                     ? "Ctrl-C leaves"
                : jobs_.list().size() == 1 ? "q leaves"
                                           : "Tab next  q leaves";
    terminal_.show(page(full));
}

WatchSession::Inputs WatchSession::inputs() const {
    // In the background keys are others'.
    const bool keys = keys_ && Terminal::in_foreground();
    return {{{signals_.fd(), POLLIN, 0}, {keys ? STDIN_FILENO : -1, POLLIN, 0}}};
}

bool WatchSession::asked_for() const {
    Inputs waiting = inputs();
    return ::poll(waiting.data(), waiting.size(), 0) > 0;
}

void WatchSession::wait_until(Clock::time_point end) {
    while (!leaves_) {
        Inputs waiting = inputs();
        if (::poll(waiting.data(), waiting.size(), milliseconds_until(end)) == 0) {
            return;
        }
        handle_signals();
        if ((waiting[1].revents & POLLIN) != 0) {
            handle_keys();
        } else if (waiting[1].revents != 0) {  // they have been hung up
            keys_ = false;
        }
    }
}

void WatchSession::handle_signals() {
    while (const std::optional<int> signal = signals_.take()) {
        switch (*signal) {
            case SIGWINCH:
                terminal_.resized();
                draw();
                break;
            case SIGTSTP:
                terminal_.leave();
                SignalQueue::stop();
                break;
            case SIGCONT:
                terminal_.forget();
                draw();
                break;
            default:
                leaves_ = true;
                // Who watches leaves by Ctrl-C as well as by a key.
                signal_ = *signal == SIGINT ? 0 : *signal;
                return;
        }
    }
}

void WatchSession::handle_keys() {
    const std::optional<char> key = terminal_.read_key();
    keys_ = key.has_value();
    switch (key.value_or('\0')) {
        case 'q':
        case 'Q':
            leaves_ = true;
            break;
        case '\t':
            ++chosen_;
            draw();
            break;
        default:
            break;
    }
}

// A line for each job at once, then again every second; the last one of a job that is over once.
int print_lines(WatchedJobs& jobs, bool json) {
    std::set<std::string> ended;
    for (;;) {
        const Clock::time_point next = Clock::now() + kLineInterval;
        jobs.look({});
        for (const WatchedJob& job : jobs.list()) {
            if (!job.is_over()) {
                ended.erase(job.name());
            } else if (!ended.insert(job.name()).second) {
                continue;
            }
            if (!job.is_unknown()) {
                std::cout << (json ? job.state().dump() : job_line(job.view())) << '\n';
            }
        }
        if (!std::cout.flush() || jobs.all_are_over()) {
            return 0;
        }
        // Only an error is told: it is a pipe that nobody reads any more.
        pollfd output{STDOUT_FILENO, 0, 0};
        if (::poll(&output, 1, milliseconds_until(next)) > 0) {
            return 0;
        }
    }
}

}  // namespace

int watch_jobs(const std::string& job, bool json) {
    WatchedJobs jobs(job);
    const TerminalClaims claims = claims_of_environment();
    if (json || ::isatty(STDOUT_FILENO) != 1 || !has_screen(claims)) {
        return print_lines(jobs, json);
    }
    const int signal = WatchSession(jobs, style_for(claims)).run();
    if (signal != 0) {
        ::raise(signal);
    }
    return 0;
}

}  // namespace nbdm
