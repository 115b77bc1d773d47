// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <unistd.h>

#include <sys/eventfd.h>

#include "iothread/check.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// An eventfd(2) as a bell: poll says readable from the first ring to the clearing.
//
// Threads: any. Fails: make_event_fd() throws std::system_error.
[[nodiscard]] inline UniqueFd make_event_fd() {
    return UniqueFd(
        check_errno(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "cannot make an eventfd"));
}

inline void ring_event_fd(int fd) noexcept {
    const std::uint64_t one = 1;
    // Can only fail with EAGAIN, when it has been rung without end.
    [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof(one));
}

inline void clear_event_fd(int fd) noexcept {
    std::uint64_t count = 0;
    // Can only fail with EAGAIN, when it has not been rung.
    [[maybe_unused]] const ssize_t got = ::read(fd, &count, sizeof(count));
}

}  // namespace nbdm
