// SPDX-License-Identifier: Apache-2.0
#include "iothread/memory_budget.h"

#include <cstdint>
#include <unistd.h>

#include <gtest/gtest.h>

#include "iothread/buffer_pool.h"
#include "iothread/io_thread.h"

namespace nbdm {

namespace {

// A thread that is never started: only its wake-up is looked at.
struct Sleeper {
    IoThread thread{{.name = "sleeper"}, [](IoThread&) {}};
    [[nodiscard]] bool was_woken() const {
        std::uint64_t count = 0;
        return ::read(thread.wake_fd(), &count, sizeof(count)) == sizeof(count);
    }
};

}  // namespace

TEST(MemoryBudget, PoolsShareIt) {
    MemoryBudget budget(128 << 10);
    BufferPool one(1 << 20, &budget);
    BufferPool other(1 << 20, &budget);
    Buffer most = one.lease(96 << 10);  // takes 128 KiB
    ASSERT_TRUE(most);
    EXPECT_FALSE(other.lease(4096));
    EXPECT_TRUE(other.budget_refused());
    most.reset();
    EXPECT_FALSE(other.lease(4096));  // kept by the other pool
    one.trim();
    EXPECT_TRUE(other.lease(4096));
    EXPECT_EQ(budget.taken_bytes(), 4096U);
}

TEST(MemoryBudget, APoolMakesRoomForItself) {
    MemoryBudget budget(64 << 10);
    BufferPool pool(1 << 20, &budget);
    pool.lease(64 << 10).reset();
    EXPECT_TRUE(pool.lease(4096));
    EXPECT_FALSE(pool.budget_refused());
    EXPECT_EQ(budget.taken_bytes(), 4096U);
}

TEST(MemoryBudget, AQuarterIsKeptForSmallRequests) {
    constexpr std::size_t kLimit = std::size_t{512} << 20;
    MemoryBudget budget(kLimit);
    EXPECT_TRUE(budget.take(kLimit / 4 * 3));
    EXPECT_FALSE(budget.take(MemoryBudget::kSmallBytes + 1));
    EXPECT_TRUE(budget.take(MemoryBudget::kSmallBytes));
}

TEST(MemoryBudget, TheLargestRequestFitsIntoTheSmallestBudget) {
    MemoryBudget budget(BufferPool::kMaxBytes);
    EXPECT_TRUE(budget.take(BufferPool::kMaxBytes));
}

TEST(MemoryBudget, WhoWaitsWakesTheOthersAndIsWokenByWhatComesBack) {
    MemoryBudget budget(4096);
    Sleeper holder;
    Sleeper waiter;
    budget.join(holder.thread);
    budget.join(waiter.thread);
    ASSERT_TRUE(budget.take(4096));
    EXPECT_FALSE(budget.wanted());
    budget.set_waiting(waiter.thread, true);
    EXPECT_TRUE(budget.wanted());
    EXPECT_TRUE(holder.was_woken());
    EXPECT_FALSE(waiter.was_woken());
    budget.give(4096);
    EXPECT_TRUE(waiter.was_woken());
    EXPECT_FALSE(holder.was_woken());
    budget.leave(waiter.thread);
    EXPECT_FALSE(budget.wanted());
    budget.leave(holder.thread);
}

}  // namespace nbdm
