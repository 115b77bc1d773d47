// SPDX-License-Identifier: Apache-2.0
#include "iothread/memory_budget.h"

#include <algorithm>
#include <cassert>

#include "iothread/buffer_pool.h"
#include "iothread/io_thread.h"

namespace nbdm {

// The largest request fits in any case.
MemoryBudget::MemoryBudget(std::size_t limit_bytes) noexcept
    : limit_bytes_(limit_bytes),
      limit_for_large_bytes_(
          std::min(limit_bytes, std::max(limit_bytes - limit_bytes / 4, BufferPool::kMaxBytes))) {}

void MemoryBudget::join(IoThread& thread) {
    const std::lock_guard lock(mutex_);
    members_.push_back({&thread});
}

void MemoryBudget::leave(IoThread& thread) noexcept {
    set_waiting(thread, false);
    const std::lock_guard lock(mutex_);
    std::erase_if(members_, [&](const Member& each) { return each.thread == &thread; });
}

bool MemoryBudget::take(std::size_t bytes) noexcept {
    // seq_cst, here and in give(): of a thread that announces that it waits and then looks once
    // more, and one that gives and then looks for waiters, at least one sees the other.
    const std::size_t limit = bytes > kSmallBytes ? limit_for_large_bytes_ : limit_bytes_;
    std::size_t taken = taken_bytes_.load(std::memory_order_seq_cst);
    do {
        if (taken + bytes > limit) {
            return false;
        }
    } while (!taken_bytes_.compare_exchange_weak(taken, taken + bytes, std::memory_order_seq_cst));
    return true;
}

void MemoryBudget::give(std::size_t bytes) noexcept {
    [[maybe_unused]] const std::size_t before =
        taken_bytes_.fetch_sub(bytes, std::memory_order_seq_cst);
    assert(before >= bytes);
    if (wanted()) {
        wake_others(nullptr, true);
    }
}

void MemoryBudget::set_waiting(IoThread& thread, bool waiting) noexcept {
    {
        const std::lock_guard lock(mutex_);
        const auto member = std::find_if(members_.begin(), members_.end(), [&](const Member& each) {
            return each.thread == &thread;
        });
        if (member == members_.end() || member->waiting == waiting) {
            return;
        }
        member->waiting = waiting;
        waiting_count_.fetch_add(waiting ? 1 : std::size_t(-1), std::memory_order_seq_cst);
    }
    if (waiting) {
        wake_others(&thread, false);
    }
}

void MemoryBudget::wake_others(const IoThread* but, bool only_waiting) noexcept {
    const std::lock_guard lock(mutex_);
    for (const Member& each : members_) {
        if (each.thread != but && (each.waiting || !only_waiting)) {
            each.thread->wake();
        }
    }
}

}  // namespace nbdm
