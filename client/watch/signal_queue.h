// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>
#include <initializer_list>
#include <optional>

#include "iothread/unique_fd.h"

namespace nbdm {

// Signals that are asked for instead of ending or stopping the program. What was ignored stays so.
//
// Threads: the program's only one.
class SignalQueue {
  public:
    SignalQueue(std::initializer_list<int> signals);
    SignalQueue(const SignalQueue&) = delete;
    SignalQueue& operator=(const SignalQueue&) = delete;
    ~SignalQueue();  // what was not taken does what it does

    // Can be read when there is a signal.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] std::optional<int> take();
    // As SIGTSTP does; returns when the program goes on.
    static void stop();

  private:
    sigset_t before_{};
    UniqueFd fd_;
};

}  // namespace nbdm
