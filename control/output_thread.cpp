// SPDX-License-Identifier: Apache-2.0
#include "control/output_thread.h"

#include <cerrno>
#include <csignal>
#include <poll.h>
#include <pthread.h>
#include <string_view>
#include <unistd.h>
#include <utility>

namespace nbdm {

namespace {

constexpr int kInterrupt = SIGURG;

void handle_interrupt() {
    struct sigaction action {};
    action.sa_handler = [](int) {};  // without SA_RESTART: the system call ends
    ::sigaction(kInterrupt, &action, nullptr);
}

// A thread that is made meanwhile takes no other signal: their handlers are other threads'
// business.
class SignalsBlocked {
  public:
    SignalsBlocked() {
        sigset_t set;
        sigfillset(&set);
        sigdelset(&set, kInterrupt);
        ::pthread_sigmask(SIG_SETMASK, &set, &before_);
    }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  private:
    sigset_t before_{};
};

}  // namespace

OutputThread::OutputThread(int fd, Notice notice) : fd_(fd), notice_(std::move(notice)) {
    handle_interrupt();
    const SignalsBlocked blocked;
    thread_ = std::thread([this] { run(); });
}

OutputThread::~OutputThread() {
    {
        std::unique_lock lock(mutex_);
        ended_ = true;
        given_.notify_one();
        // Again and again: one that comes just before the write does not interrupt it.
        constexpr std::chrono::milliseconds kAgain(10);
        while (!left_.wait_for(lock, kAgain, [&] { return has_left_; })) {
            ::pthread_kill(thread_.native_handle(), kInterrupt);
        }
    }
    thread_.join();
}

void OutputThread::write(std::string text) {
    {
        const std::lock_guard lock(mutex_);
        const bool fits = waiting_bytes_ == 0 || waiting_bytes_ + text.size() <= kMaxWaitingBytes;
        if (dropped_ > 0 || !fits) {
            ++dropped_;
            return;
        }
        waiting_bytes_ += text.size();
        texts_.push_back(std::move(text));
    }
    given_.notify_one();
}

bool OutputThread::is_idle() const {
    const std::lock_guard lock(mutex_);
    return waiting_bytes_ == 0;
}

bool OutputThread::flush(std::chrono::milliseconds limit) const {
    std::unique_lock lock(mutex_);
    return idle_.wait_for(lock, limit, [&] { return waiting_bytes_ == 0; });
}

void OutputThread::run() {
    std::unique_lock lock(mutex_);
    while (true) {
        given_.wait(lock, [&] { return ended_ || !texts_.empty(); });
        if (ended_) {
            break;
        }
        const std::string text = std::move(texts_.front());
        texts_.pop_front();
        lock.unlock();
        write_all(text);
        lock.lock();
        waiting_bytes_ -= text.size();
        if (texts_.empty() && dropped_ > 0) {
            const std::size_t dropped = std::exchange(dropped_, 0);
            if (notice_) {
                texts_.push_back(notice_(dropped));
                waiting_bytes_ += texts_.back().size();
            }
        }
        if (waiting_bytes_ == 0) {
            idle_.notify_all();
        }
    }
    has_left_ = true;
    left_.notify_one();
}

// The descriptor may be one that another program has made non-blocking.
void OutputThread::write_all(std::string_view text) const {
    while (!text.empty() && !ended_) {
        const ssize_t written = ::write(fd_, text.data(), text.size());
        if (written >= 0) {
            text.remove_prefix(static_cast<std::size_t>(written));
        } else if (errno == EAGAIN) {
            pollfd room{fd_, POLLOUT, 0};
            ::poll(&room, 1, -1);
        } else if (errno != EINTR) {
            return;
        }
    }
}

}  // namespace nbdm
