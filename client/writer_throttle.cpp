// SPDX-License-Identifier: Apache-2.0
#include "client/writer_throttle.h"

#include <cmath>
#include <string>
#include <utility>

#include "client/source_server.h"

namespace nbdm {

namespace {

constexpr std::chrono::milliseconds kLease{5000};

}  // namespace

void WriterThrottle::look(const Convergence::Seen& seen) {
    const Convergence::Delay delay = convergence_.look(seen);
    const bool can_do_more = allowed_ && delay < Convergence::kMaxDelay;
    if (convergence_.losing() && !can_do_more) {
        say_that_it_does_not_converge(seen);
    } else {
        take_back_what_was_said();
    }
    if (!allowed_) {
        return;
    }
    if (delay.count() == 0) {
        stop();
        return;
    }
    throttled_ = true;
    status_.set_throttle(delay);
    try {
        ask_(delay, kLease);
    } catch (const NoAnswer&) {  // if the server is gone, the copying meets that
    }
}

// Once, with the rates of then: a reason why it was not cut over may be said meanwhile.
void WriterThrottle::say_that_it_does_not_converge(const Convergence::Seen& seen) {
    if (!said_.empty()) {
        return;
    }
    const auto megabytes = [](double bytes) { return std::to_string(std::llround(bytes / 1e6)); };
    said_ = "does not converge: " + megabytes(seen.dirty_bytes_per_s) + " MB/s written, " +
            megabytes(seen.copy_bytes_per_s) + " MB/s copied";
    status_.set_error(said_);
}

void WriterThrottle::take_back_what_was_said() {
    if (!said_.empty()) {
        status_.clear_error(std::exchange(said_, ""));
    }
}

void WriterThrottle::stop() noexcept {
    take_back_what_was_said();
    if (!std::exchange(throttled_, false)) {
        return;
    }
    convergence_.stop();
    status_.set_throttle(Convergence::Delay(0));
    try {
        ask_(Convergence::Delay(0), std::chrono::milliseconds(1));
    } catch (const std::exception&) {  // its lease ends it
    }
}

}  // namespace nbdm
