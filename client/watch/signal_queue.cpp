// SPDX-License-Identifier: Apache-2.0
#include "client/watch/signal_queue.h"

#include <unistd.h>

#include <sys/signalfd.h>

#include "iothread/check.h"

namespace nbdm {

SignalQueue::SignalQueue(std::initializer_list<int> signals) {
    sigset_t set{};
    ::sigemptyset(&set);
    for (const int each : signals) {
        struct sigaction action {};
        ::sigaction(each, nullptr, &action);
        if (action.sa_handler != SIG_IGN) {
            ::sigaddset(&set, each);
        }
    }
    fd_ = UniqueFd(
        check_errno(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), "cannot make a signalfd"));
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
}

SignalQueue::~SignalQueue() {
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

std::optional<int> SignalQueue::take() {
    signalfd_siginfo signal{};
    if (::read(fd_.get(), &signal, sizeof(signal)) != sizeof(signal)) {
        return std::nullopt;
    }
    return static_cast<int>(signal.ssi_signo);
}

void SignalQueue::stop() {
    sigset_t set{};
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGTSTP);
    ::raise(SIGTSTP);
    // Now it happens.
    ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

}  // namespace nbdm
