// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <list>
#include <mutex>

namespace nbdm {

class IoThread;

// How much memory all buffer pools of a process may have together. A pool that gets none waits its
// turn; as long as one does, the others give back what they keep and do not use. A quarter is for
// small requests, so that those who hold much, and take their time, do not stop the others.
//
// Threads: any. Outlives its members.
class MemoryBudget {
  public:
    // nbdcopy's requests, and most of a guest's, are not larger.
    static constexpr std::size_t kSmallBytes = 256 << 10;
    // With less than 4/3 of BufferPool::kMaxBytes such a request would wait for ever.
    static constexpr std::size_t kMinLimitBytes = std::size_t{96} << 20;

    // `max_members`: as many may there be at a time, at least one.
    MemoryBudget(std::size_t limit_bytes, std::size_t max_members) noexcept
        : limit_bytes_(limit_bytes),
          fair_parking_bytes_(std::min(kMaxParkingBytes, limit_bytes / 4 / max_members)) {}
    MemoryBudget(const MemoryBudget&) = delete;
    MemoryBudget& operator=(const MemoryBudget&) = delete;
    ~MemoryBudget() = default;

    [[nodiscard]] std::size_t limit_bytes() const noexcept { return limit_bytes_; }
    // How many members wait at the moment.
    [[nodiscard]] std::size_t waiting_count() const noexcept {
        return waiting_count_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] std::size_t taken_bytes() const noexcept {
        return taken_bytes_.load(std::memory_order_relaxed);
    }

    // One pool's share; its thread is woken when memory comes back that it waits for, and when
    // another waits for what it has.
    //
    // Threads: its own.
    class Member {
      public:
        // Both outlive it.
        Member(MemoryBudget& budget, IoThread& thread);
        Member(const Member&) = delete;
        Member& operator=(const Member&) = delete;
        ~Member();  // asserts that all was given back

        // False: not now; it waits from now on, first come first served, until it gets what it asks
        // for or says stop_waiting(). Small ones pass large ones as long as the quarter lasts.
        [[nodiscard]] bool take(std::size_t bytes) noexcept;
        // What one take() has got.
        void give(std::size_t bytes) noexcept;
        void stop_waiting() noexcept;
        [[nodiscard]] bool waits() const noexcept { return waits_; }
        // What it may keep at this moment for as long as it pleases, as in a hold. However many do,
        // about half is left to the others; members that look at once may take some more.
        [[nodiscard]] std::size_t parking_bytes() const noexcept {
            return budget_.taken_bytes() < budget_.limit_bytes_ / 4 ? kMaxParkingBytes
                                                                    : budget_.fair_parking_bytes_;
        }
        // Somebody else waits.
        [[nodiscard]] bool wanted_by_others() const noexcept {
            return budget_.waiting_count() > (waits_ ? 1U : 0U);
        }

      private:
        friend class MemoryBudget;
        MemoryBudget& budget_;
        IoThread& thread_;
        std::size_t taken_bytes_ = 0;   // guarded by the budget's mutex
        std::size_t wanted_bytes_ = 0;  // likewise
        bool waits_ = false;            // changed by its thread, under the mutex
    };

  private:
    // As deep as a guest's queue is; more of one connection's writes than that need not be here
    // while a hold keeps them waiting.
    static constexpr std::size_t kMaxParkingBytes = std::size_t{4} << 20;

    [[nodiscard]] bool fits_locked(const Member& member, std::size_t bytes) const noexcept;
    void stop_waiting_locked(Member& member) noexcept;

    const std::size_t limit_bytes_;
    const std::size_t fair_parking_bytes_;
    std::atomic<std::size_t> taken_bytes_{0};    // changed under the mutex
    std::atomic<std::size_t> waiting_count_{0};  // likewise

    std::mutex mutex_;                   // guards all below
    std::size_t small_taken_bytes_ = 0;  // in pieces of up to kSmallBytes
    std::list<Member*> members_;
    std::list<Member*> waiting_;  // in the order in which they came
};

}  // namespace nbdm
