// SPDX-License-Identifier: Apache-2.0
#include "iothread/range.h"

#include <gtest/gtest.h>

namespace nbdm {

TEST(Range, AnEndBeyond64BitsDoesNotFit) {
    EXPECT_FALSE(Range::fits(UINT64_MAX - 10, 20, UINT64_MAX));
    EXPECT_FALSE(Range::fits(UINT64_MAX, 1, 4096));
    EXPECT_FALSE(Range::fits(4096, 1, 4096));
    EXPECT_TRUE(Range::fits(4096, 0, 4096));
    EXPECT_TRUE(Range::fits(0, 4096, 4096));
}

TEST(Range, AfterNeverPassesTheEnd) {
    const Range range{100, 50};
    EXPECT_EQ(range.after(20), (Range{120, 30}));
    EXPECT_EQ(range.after(80), (Range{150, 0}));
    EXPECT_EQ(range.first(80), range);
}

TEST(Range, WholeUnitsLeaveTheEndsOut) {
    EXPECT_EQ(whole_units({100, 1000}, 512), (Range{512, 512}));
    EXPECT_EQ(whole_units({512, 1024}, 512), (Range{512, 1024}));
    EXPECT_EQ(whole_units({100, 300}, 512), (Range{400, 0}));
    EXPECT_EQ(whole_units({500, 100}, 512), (Range{512, 0}));
    EXPECT_EQ(whole_units({0, 511}, 512), (Range{0, 0}));
}

TEST(Range, AlignsBothWays) {
    EXPECT_EQ(align_down(4097, 4096), 4096u);
    EXPECT_EQ(align_up(4097, 4096), 8192u);
    EXPECT_EQ(align_up(4096, 4096), 4096u);
}

}  // namespace nbdm
