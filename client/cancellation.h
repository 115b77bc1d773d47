// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>

namespace nbdm {

// Somebody wants the job to end early. Everything that waits looks at it several times a second.
//
// Threads: any.
class Cancellation {
  public:
    Cancellation() = default;
    // Requested when `whole`, which outlives it, is.
    explicit Cancellation(const Cancellation* whole) noexcept : whole_(whole) {}

    void request() noexcept { requested_.store(true, std::memory_order_release); }
    [[nodiscard]] bool requested() const noexcept {
        return requested_.load(std::memory_order_acquire) ||
               (whole_ != nullptr && whole_->requested());
    }

  private:
    const Cancellation* const whole_ = nullptr;
    std::atomic<bool> requested_{false};
};

// Thrown by what was waiting when the cancellation came.
class Cancelled : public std::runtime_error {
  public:
    Cancelled() : std::runtime_error("cancelled") {}
};

// A job cannot go on; the sentence says what failed, on what, and why.
class JobError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// A server is gone, or does not answer; the same may succeed later.
class ConnectionLost : public JobError {
  public:
    using JobError::JobError;
};

}  // namespace nbdm
