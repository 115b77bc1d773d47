// SPDX-License-Identifier: Apache-2.0
#include "iothread/io_thread.h"

#include <cstdint>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#include <utility>

#include "iothread/check.h"
#include "iothread/event_fd.h"

namespace nbdm {

IoThread::IoThread(Options options, std::function<void(IoThread&)> body)
    : options_(std::move(options)), body_(std::move(body)), wake_fd_(make_event_fd()) {}

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
    ring_event_fd(wake_fd_.get());
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
    clear_event_fd(thread_.wake_fd());
    if (armed_) {
        ring_.poll(*this, thread_.wake_fd(), POLLIN);
    }
}

}  // namespace nbdm
