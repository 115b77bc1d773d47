// SPDX-License-Identifier: Apache-2.0
#include "iothread/buffer_pool.h"

#include <cstdint>

#include <gtest/gtest.h>

namespace nbdm {

TEST(BufferPool, GivesWarmMemoryAgain) {
    BufferPool pool(1 << 20);
    Buffer first = pool.lease(5000);
    std::byte* const memory = first.data();
    EXPECT_EQ(first.capacity_bytes(), 8192u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % 4096, 0u);
    first.reset();
    EXPECT_EQ(pool.lease(8192).data(), memory);
}

TEST(BufferPool, StopsAtItsLimitAndGoesOnWhenSomethingComesBack) {
    BufferPool pool(64 << 10);
    Buffer all = pool.lease(64 << 10);
    EXPECT_FALSE(pool.lease(4096));
    all.reset();
    EXPECT_TRUE(pool.lease(4096));
}

TEST(BufferPool, KeptMemoryOfOneSizeMakesRoomForAnother) {
    BufferPool pool(64 << 10);
    pool.lease(64 << 10).reset();
    const Buffer small = pool.lease(4096);
    EXPECT_TRUE(small);
    EXPECT_EQ(pool.leased_bytes(), 4096u);
}

}  // namespace nbdm
