// SPDX-License-Identifier: Apache-2.0
#include "client/progress_printer.h"

#include <algorithm>
#include <cmath>
#include <unistd.h>

#include <sys/ioctl.h>

#include "control/size.h"

namespace nbdm {

namespace {

constexpr std::size_t kDefaultWidth = 80;
constexpr std::size_t kMaxBarWidth = 30;
// What a terminal that has not been stopped may take to draw a line.
constexpr std::chrono::milliseconds kDrawingTime(100);

std::size_t terminal_width() {
    winsize size{};
    return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col
                                                                             : kDefaultWidth;
}

}  // namespace

std::string format_bar(const JobSnapshot& snapshot, std::size_t width) {
    const DiskSnapshot sum = sum_of_disks(snapshot);
    const double share = sum.total_bytes == 0 ? 0
                                              : static_cast<double>(sum.moved_bytes) /
                                                    static_cast<double>(sum.total_bytes);
    const bool paused = snapshot.paused != Paused::no && !is_over(snapshot.phase);
    const std::string head = paused ? "paused" : to_string(snapshot.phase);
    std::string tail = " " + std::to_string(static_cast<int>(std::floor(100 * share))) + " %  " +
                       format_size(static_cast<double>(sum.moved_bytes)) + " of " +
                       format_size(static_cast<double>(sum.total_bytes));
    if (sum.copy_rate && !is_over(snapshot.phase) && !paused) {
        tail += "  " + format_size(*sum.copy_rate) + "/s";
    }
    if (sum.dirty_bytes > 0) {
        tail += "  dirty " + format_size(static_cast<double>(sum.dirty_bytes));
    }
    if (snapshot.eta_s) {
        tail += "  " + format_time(*snapshot.eta_s) + " left";
    }
    std::string line = head;
    // "catching_up" and "cutting_over" are the longest.
    line.append(line.size() < 12 ? 12 - line.size() : 0, ' ');
    if (width > line.size() + tail.size() + 8) {
        const std::size_t bar = std::min(width - line.size() - tail.size() - 4, kMaxBarWidth);
        const auto filled = static_cast<std::size_t>(share * static_cast<double>(bar));
        line += " [" + std::string(filled, '#') + std::string(bar - filled, '.') + "]";
    }
    line += tail;
    return line.substr(0, width > 0 ? width - 1 : 0);
}

ProgressPrinter::ProgressPrinter(ProgressStyle style)
    : style_(style), terminal_(::isatty(STDERR_FILENO) == 1), output_(STDOUT_FILENO) {}

void ProgressPrinter::show(const JobSnapshot& snapshot) {
    if (style_ == ProgressStyle::json && output_.is_idle()) {
        print(to_json(snapshot).dump());
    } else if (style_ == ProgressStyle::bar && terminal_) {
        draw_line(format_bar(snapshot, terminal_width()));
    }
}

void ProgressPrinter::show_phase_change(const JobSnapshot& snapshot) {
    if (style_ == ProgressStyle::json) {
        print(to_json(snapshot).dump());
    } else if (style_ == ProgressStyle::bar && !terminal_) {
        say_line(format_bar(snapshot, kDefaultWidth));
    } else {
        show(snapshot);
    }
}

void ProgressPrinter::finish(const JobSnapshot& last) {
    if (style_ == ProgressStyle::bar && terminal_ && flush(kDrawingTime)) {
        show(last);
    }
    leave_drawn_line();
}

void ProgressPrinter::print(const std::string& line) {
    output_.write(line + '\n');
}

bool ProgressPrinter::flush(std::chrono::milliseconds limit) const {
    return log_.flush(limit) && output_.flush(limit);
}

}  // namespace nbdm
