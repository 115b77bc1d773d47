// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "iothread/ring.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// A thread that does I/O: a name that `top -H` shows, a wake-up that other threads may ring, and a
// stop signal. Its body makes the Ring, because a ring belongs to the thread that made it.
//
// Threads: the owner constructs, joins and destroys it; wake() and request_stop() may be called
//          by any thread while the object lives.
class IoThread {
  public:
    struct Options {
        std::string name;  // at most 15 bytes are shown
        int cpu = -1;      // pin to this CPU; -1: not pinned
    };

    IoThread(Options options, std::function<void(IoThread&)> body);
    IoThread(const IoThread&) = delete;
    IoThread& operator=(const IoThread&) = delete;
    ~IoThread();  // requests the stop and joins

    // Starts the body. Apart from the constructor, so that the owner can first put the object
    // where the body expects it.
    void start();
    void join();

    // Makes a WakeOperation on this thread complete soon. Wakes are merged.
    void wake() noexcept;
    void request_stop() noexcept;
    [[nodiscard]] bool stop_requested() const noexcept {
        return stop_.load(std::memory_order_acquire);
    }
    [[nodiscard]] int wake_fd() const noexcept { return wake_fd_.get(); }
    // The kernel's id of the thread, 0 before it runs. Any thread.
    [[nodiscard]] int tid() const noexcept { return tid_.load(std::memory_order_relaxed); }

  private:
    const Options options_;
    const std::function<void(IoThread&)> body_;
    const UniqueFd wake_fd_;
    std::atomic<bool> stop_{false};
    std::atomic<int> tid_{0};
    std::jthread thread_;
};

// Keeps one poll of an IoThread's wake-up in the ring, so that run_once() returns when somebody
// rings it. The body looks at its own flags afterwards.
//
// Threads: the iothread. Before it is destroyed: disarm(), then run the ring until idle.
class WakeOperation final : public Operation {
  public:
    WakeOperation(Ring& ring, IoThread& thread);
    void disarm();

  private:
    void completed(int result) noexcept override;
    Ring& ring_;
    IoThread& thread_;
    bool armed_ = true;
};

}  // namespace nbdm
