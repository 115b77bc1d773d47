// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace nbdm {

// Writes texts to a descriptor, each with one write, in the order given, on a thread of its own:
// who says something never waits for who reads it, be it a terminal that Ctrl-S has stopped, a
// pager, or a journal that stands still.
//
// Threads: any. What the descriptor refuses (its reader is gone, its disk is full) is dropped.
class OutputThread {
  public:
    // What waits for its reader at most; what is more is dropped until all of it has been read.
    static constexpr std::size_t kMaxWaitingBytes = 256 << 10;

    // Says how many texts were dropped, where they would have stood; may be empty.
    using Notice = std::function<std::string(std::size_t dropped)>;

    // The descriptor is not owned.
    explicit OutputThread(int fd, Notice notice = {});
    OutputThread(const OutputThread&) = delete;
    OutputThread& operator=(const OutputThread&) = delete;
    // Does not wait for a reader: what still waits for one is dropped. The thread's write is
    // interrupted by a SIGURG, for which the constructor sets a handler that does nothing: of the
    // signals that a program may have a handler for, one that does nothing without it either.
    ~OutputThread();

    void write(std::string text);
    // Nothing waits to be read.
    [[nodiscard]] bool is_idle() const;
    // Waits until it is, at most `limit`. Returns whether it is.
    [[nodiscard]] bool flush(std::chrono::milliseconds limit) const;

  private:
    void run();
    void write_all(std::string_view text) const;

    const int fd_;
    const Notice notice_;
    mutable std::mutex mutex_;  // guards all below but the thread
    std::condition_variable given_;
    mutable std::condition_variable idle_;
    std::deque<std::string> texts_;
    std::size_t waiting_bytes_ = 0;  // of these, and of the one that is being written
    std::size_t dropped_ = 0;        // since the last notice
    std::condition_variable left_;
    bool has_left_ = false;            // the thread
    std::atomic<bool> ended_ = false;  // set under the mutex
    std::thread thread_;
};

}  // namespace nbdm
