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
    say_whether_it_converges(!convergence_.losing() || can_do_more, seen);
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

void WriterThrottle::say_whether_it_converges(bool converges, const Convergence::Seen& seen) {
    if (converges == std::exchange(converges_, converges)) {
        return;
    }
    const auto megabytes = [](double bytes) { return std::to_string(std::llround(bytes / 1e6)); };
    status_.set_error(converges ? ""
                                : "does not converge: " + megabytes(seen.dirty_bytes_per_s) +
                                      " MB/s written, " + megabytes(seen.copy_bytes_per_s) +
                                      " MB/s copied");
}

void WriterThrottle::stop() noexcept {
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
