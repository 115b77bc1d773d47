// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <vector>

namespace nbdm {

class IoThread;

// How much memory all buffer pools of a process may have together. A pool that gets none waits;
// as long as one does, the others give back what they keep and do not use. A quarter is kept for
// small requests, so that those who hold much, and take their time, do not stop the others.
//
// Threads: any. Outlives the pools that draw on it.
class MemoryBudget {
  public:
    static constexpr std::size_t kSmallBytes = 256 << 10;

    explicit MemoryBudget(std::size_t limit_bytes) noexcept;
    MemoryBudget(const MemoryBudget&) = delete;
    MemoryBudget& operator=(const MemoryBudget&) = delete;
    ~MemoryBudget() = default;

    // A thread that has a pool is known from join() to leave(), and woken when memory comes back
    // that it waits for, and when another waits for memory.
    void join(IoThread& thread);
    void leave(IoThread& thread) noexcept;

    // False: there is not so much left.
    [[nodiscard]] bool take(std::size_t bytes) noexcept;
    void give(std::size_t bytes) noexcept;

    // `thread` cannot go on without memory, or can again.
    void set_waiting(IoThread& thread, bool waiting) noexcept;
    // Some thread cannot go on.
    [[nodiscard]] bool wanted() const noexcept {
        return waiting_count_.load(std::memory_order_seq_cst) > 0;
    }
    [[nodiscard]] std::size_t taken_bytes() const noexcept {
        return taken_bytes_.load(std::memory_order_relaxed);
    }

  private:
    void wake_others(const IoThread* but, bool only_waiting) noexcept;

    const std::size_t limit_bytes_;
    const std::size_t limit_for_large_bytes_;
    std::atomic<std::size_t> taken_bytes_{0};
    std::atomic<std::size_t> waiting_count_{0};

    struct Member {
        IoThread* thread = nullptr;
        bool waiting = false;
    };
    std::mutex mutex_;  // guards all below
    std::vector<Member> members_;
};

}  // namespace nbdm
