// SPDX-License-Identifier: Apache-2.0
#include "iothread/memory_budget.h"

#include <cstdint>
#include <unistd.h>

#include <gtest/gtest.h>

#include "iothread/buffer_pool.h"
#include "iothread/io_thread.h"

namespace nbdm {

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kSmall = MemoryBudget::kSmallBytes;

// One member, with a thread that is never started: only its wake-up is looked at.
struct Sharer {
    explicit Sharer(MemoryBudget& budget) : member(budget, thread) {}
    [[nodiscard]] bool was_woken() const {
        std::uint64_t count = 0;
        return ::read(thread.wake_fd(), &count, sizeof(count)) == sizeof(count);
    }
    IoThread thread{{.name = "sharer"}, [](IoThread&) {}};
    MemoryBudget::Member member;
};

}  // namespace

TEST(MemoryBudget, PoolsShareIt) {
    MemoryBudget budget(128 << 10, 4);
    Sharer one_sharer(budget);
    Sharer other_sharer(budget);
    BufferPool one(1 << 20, &one_sharer.member);
    BufferPool other(1 << 20, &other_sharer.member);
    Buffer most = one.lease(96 << 10);  // takes 128 KiB
    ASSERT_TRUE(most);
    EXPECT_FALSE(other.lease(4096));
    EXPECT_TRUE(other_sharer.member.waits());
    EXPECT_TRUE(one_sharer.member.wanted_by_others());
    EXPECT_FALSE(other_sharer.member.wanted_by_others());
    most.reset();
    EXPECT_FALSE(other.lease(4096));  // kept by the other pool
    one.trim();
    EXPECT_TRUE(other.lease(4096));
    EXPECT_FALSE(other_sharer.member.waits());
    EXPECT_EQ(budget.taken_bytes(), 4096U);
}

TEST(MemoryBudget, APoolMakesRoomForItself) {
    MemoryBudget budget(64 << 10, 4);
    Sharer sharer(budget);
    BufferPool pool(1 << 20, &sharer.member);
    pool.lease(64 << 10).reset();
    EXPECT_TRUE(pool.lease(4096));
    EXPECT_FALSE(sharer.member.waits());
    EXPECT_EQ(budget.taken_bytes(), 4096U);
}

TEST(MemoryBudget, AQuarterIsKeptForSmallRequestsAndTheLargestFitsIntoTheRest) {
    MemoryBudget budget(MemoryBudget::kMinLimitBytes, 4);
    Sharer large(budget);
    Sharer small(budget);
    EXPECT_GE(MemoryBudget::kMinLimitBytes / 4 * 3, BufferPool::kMaxBytes);
    ASSERT_TRUE(large.member.take(72 * kMiB));
    EXPECT_FALSE(large.member.take(kSmall + 1));
    for (std::size_t taken = 0; taken < 24 * kMiB; taken += kSmall) {
        ASSERT_TRUE(small.member.take(kSmall)) << taken;
    }
    EXPECT_FALSE(small.member.take(kSmall));
    for (std::size_t taken = 0; taken < 24 * kMiB; taken += kSmall) {
        small.member.give(kSmall);
    }
    EXPECT_FALSE(large.member.take(kMiB)) << "there is room, but it is for small ones";
    large.member.give(72 * kMiB);
}

TEST(MemoryBudget, NothingIsLostHoweverPoolsUseIt) {
    MemoryBudget budget(MemoryBudget::kMinLimitBytes, 4);
    {
        Sharer sharer(budget);
        BufferPool pool(BufferPool::kMaxBytes, &sharer.member);
        for (std::size_t bytes = 4096; bytes <= BufferPool::kMaxBytes / 4; bytes *= 2) {
            const Buffer one = pool.lease(bytes);
            const Buffer other = pool.lease(bytes);
            ASSERT_TRUE(one && other) << bytes;
        }
    }
    EXPECT_EQ(budget.taken_bytes(), 0U);
    Sharer sharer(budget);
    EXPECT_TRUE(sharer.member.take(72 * kMiB));
    EXPECT_TRUE(sharer.member.take(kSmall));
    sharer.member.give(72 * kMiB);
    sharer.member.give(kSmall);
}

TEST(MemoryBudget, WhoFindsItInItsOwnMemoryWaitsNoMore) {
    MemoryBudget budget(100 * kMiB, 4);
    Sharer holder(budget);
    Sharer sharer(budget);
    Sharer third(budget);
    BufferPool pool(BufferPool::kMaxBytes, &sharer.member);
    Buffer buffer = pool.lease(kMiB);
    ASSERT_TRUE(holder.member.take(74 * kMiB));
    EXPECT_FALSE(pool.lease(kMiB));
    EXPECT_TRUE(sharer.member.waits());
    buffer.reset();
    buffer = pool.lease(kMiB);
    EXPECT_TRUE(buffer);
    EXPECT_FALSE(sharer.member.waits());
    holder.member.give(74 * kMiB);
    EXPECT_TRUE(third.member.take(kMiB)) << "it would be the turn of one that waits no more";
    third.member.give(kMiB);
}

TEST(MemoryBudget, WhoWaitsWakesThoseWhoHaveSomethingAndIsWokenWhenItIsEnough) {
    MemoryBudget budget(100 * kMiB, 4);
    Sharer holder(budget);
    Sharer bystander(budget);
    Sharer waiter(budget);
    ASSERT_TRUE(holder.member.take(40 * kMiB));
    ASSERT_TRUE(holder.member.take(30 * kMiB));
    EXPECT_EQ(budget.waiting_count(), 0U);
    EXPECT_FALSE(waiter.member.take(50 * kMiB));
    EXPECT_FALSE(waiter.member.take(50 * kMiB));
    EXPECT_EQ(budget.waiting_count(), 1U) << "members are counted, not their tries";
    EXPECT_TRUE(holder.was_woken());
    EXPECT_FALSE(bystander.was_woken());
    EXPECT_FALSE(waiter.was_woken());
    holder.member.give(30 * kMiB);
    EXPECT_FALSE(waiter.was_woken());
    holder.member.give(40 * kMiB);
    EXPECT_TRUE(waiter.was_woken());
    EXPECT_TRUE(waiter.member.take(50 * kMiB));
    EXPECT_FALSE(holder.member.wanted_by_others());
    EXPECT_EQ(budget.waiting_count(), 0U);
    waiter.member.give(50 * kMiB);
}

TEST(MemoryBudget, LargeRequestsAreServedInTurnWhileSmallOnesPass) {
    MemoryBudget budget(100 * kMiB, 4);
    Sharer holder(budget);
    Sharer first(budget);
    Sharer greedy(budget);
    ASSERT_TRUE(holder.member.take(kMiB));
    EXPECT_FALSE(first.member.take(75 * kMiB));
    EXPECT_FALSE(greedy.member.take(kMiB)) << "there is room, but it is another's turn";
    EXPECT_TRUE(greedy.member.take(kSmall));
    holder.member.give(kMiB);
    EXPECT_TRUE(first.was_woken());
    EXPECT_FALSE(greedy.member.take(kMiB));
    first.member.stop_waiting();  // its client has left
    EXPECT_TRUE(greedy.was_woken());
    EXPECT_TRUE(greedy.member.take(kMiB));
    greedy.member.give(kMiB);
    greedy.member.give(kSmall);
}

TEST(MemoryBudget, LessMayBeKeptForLongOnceMuchIsTaken) {
    MemoryBudget budget(100 * kMiB, 100);
    Sharer sharer(budget);
    EXPECT_EQ(sharer.member.parking_bytes(), 4 * kMiB);
    ASSERT_TRUE(sharer.member.take(25 * kMiB));
    EXPECT_EQ(sharer.member.parking_bytes(), kMiB / 4);
    sharer.member.give(25 * kMiB);
    EXPECT_EQ(sharer.member.parking_bytes(), 4 * kMiB);
}

}  // namespace nbdm
