// SPDX-License-Identifier: Apache-2.0
#include "client/convergence.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

constexpr double kMb = 1e6;

TEST(Convergence, WritersThatAreSlowEnoughAreLeftAlone) {
    Convergence convergence;
    const Convergence::Seen slow{.dirty_bytes_per_s = 30 * kMb, .copy_bytes_per_s = 100 * kMb};
    EXPECT_EQ(convergence.look(slow).count(), 0);
    EXPECT_FALSE(convergence.losing());
}

TEST(Convergence, NobodyIsSlowedDownWhereItIsReadyAnyway) {
    Convergence convergence;
    const Convergence::Seen hot{
        .fits = true, .dirty_bytes_per_s = 900 * kMb, .copy_bytes_per_s = 100 * kMb};
    EXPECT_EQ(convergence.look(hot).count(), 0);
    EXPECT_FALSE(convergence.losing());
}

TEST(Convergence, NothingIsDecidedBeforeTheCopyRateIsKnown) {
    Convergence convergence;
    EXPECT_EQ(convergence.look({.dirty_bytes_per_s = 900 * kMb}).count(), 0);
}

// A writer that does `depth` writes at a time, each of which takes 50 us undelayed.
TEST(Convergence, TheDelayGrowsGraduallyUntilTheWriterIsSlowEnoughAndNoFurther) {
    for (const double depth : {1.0, 8.0, 32.0}) {
        Convergence convergence;
        Convergence::Delay delay{0};
        Convergence::Delay before{0};
        double dirty = 0;
        for (int look = 0; look < 60; ++look) {
            const double takes_s = 50e-6 + static_cast<double>(delay.count()) * 1e-6;
            dirty = std::min(100 * kMb * 4, depth * 65536 / takes_s);
            before = delay;
            delay = convergence.look({.dirty_bytes_per_s = dirty, .copy_bytes_per_s = 60 * kMb});
            EXPECT_LE(delay.count(), std::max<long>(100, before.count() * 3 / 2)) << depth;
        }
        EXPECT_LT(dirty, 60 * kMb) << depth;
        EXPECT_GT(dirty, 60 * kMb / 3) << depth << ": no slower than needed";
    }
}

TEST(Convergence, IsNotGivenBackBetweenGettingReadyAndTheCutover) {
    Convergence convergence;
    Convergence::Seen seen{.dirty_bytes_per_s = 500 * kMb, .copy_bytes_per_s = 60 * kMb};
    convergence.look(seen);
    const Convergence::Delay delay = convergence.look(seen);
    seen = {.fits = true,
            .cutover_wanted = true,
            .dirty_bytes_per_s = 20 * kMb,
            .copy_bytes_per_s = 60 * kMb};
    EXPECT_EQ(convergence.look(seen), delay);
    seen.cutover_wanted = false;
    EXPECT_LT(convergence.look(seen), delay);
    // Slower than it need be it is not kept either.
    seen.cutover_wanted = true;
    seen.fits = false;
    const Convergence::Delay before = convergence.look(seen);
    EXPECT_LT(convergence.look(seen), before);
}

TEST(Convergence, IsGivenBackWhenItIsNotNeededAnyMore) {
    Convergence convergence;
    for (int look = 0; look < 30; ++look) {
        convergence.look({.dirty_bytes_per_s = 500 * kMb, .copy_bytes_per_s = 60 * kMb});
    }
    EXPECT_TRUE(convergence.losing());
    Convergence::Delay delay = Convergence::kMaxDelay;
    for (int look = 0; look < 70; ++look) {
        delay = convergence.look({.dirty_bytes_per_s = 1 * kMb, .copy_bytes_per_s = 60 * kMb});
    }
    EXPECT_EQ(delay.count(), 0);
}

}  // namespace
}  // namespace nbdm
