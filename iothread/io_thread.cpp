// SPDX-License-Identifier: Apache-2.0
#include "iothread/io_thread.h"

#include <cstdint>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#include <utility>

#include <sys/eventfd.h>

#include "iothread/check.h"

namespace nbdm {

IoThread::IoThread(Options options, std::function<void(IoThread&)> body)
    : options_(std::move(options)),
      body_(std::move(body)),
      wake_fd_(check_errno(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "cannot make an eventfd")) {}

IoThread::~IoThread() {
    request_stop();
    join();
}

void IoThread::start() {
    thread_ = std::jthread([this] {
        pthread_setname_np(pthread_self(), options_.name.substr(0, 15).c_str());
        if (options_.cpu >= 0) {
            cpu_set_t set;
            CPU_ZERO(&set);
            CPU_SET(static_cast<unsigned>(options_.cpu), &set);
            // Pinning is a wish: a CPU that is gone or forbidden must not stop the service.
            pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
        }
        tid_.store(::gettid(), std::memory_order_relaxed);
        body_(*this);
    });
}

void IoThread::join() {
    if (thread_.joinable()) {
        thread_.join();
    }
}

void IoThread::wake() noexcept {
    const std::uint64_t one = 1;
    // Can only fail with EAGAIN, when a wake-up is pending already.
    [[maybe_unused]] const ssize_t written = ::write(wake_fd_.get(), &one, sizeof(one));
}

void IoThread::request_stop() noexcept {
    stop_.store(true, std::memory_order_release);
    wake();
}

WakeOperation::WakeOperation(Ring& ring, IoThread& thread) : ring_(ring), thread_(thread) {
    ring_.poll(*this, thread_.wake_fd(), POLLIN);
}

void WakeOperation::disarm() {
    armed_ = false;
    ring_.cancel(*this);
}

void WakeOperation::completed(int) noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(thread_.wake_fd(), &count, sizeof(count));
    if (armed_) {
        ring_.poll(*this, thread_.wake_fd(), POLLIN);
    }
}

}  // namespace nbdm
