// SPDX-License-Identifier: Apache-2.0
#include "client/late_writes.h"

#include <gtest/gtest.h>

namespace nbdm {

namespace {

using std::chrono::seconds;

const LateWrites::Clock::time_point kBegin{seconds(1000)};

}  // namespace

TEST(LateWrites, HaveTheirTimeFromTheLastLossOn) {
    LateWrites late;
    EXPECT_TRUE(late.none());
    EXPECT_TRUE(late.due(kBegin).empty());
    late.lost({{4096, 4096}}, kBegin);
    EXPECT_FALSE(late.none());
    EXPECT_TRUE(late.due(kBegin + LateWrites::kGrace - seconds(1)).empty());
    late.lost({{0, 4096}, {65536, 512}}, kBegin + seconds(10));
    EXPECT_TRUE(late.due(kBegin + LateWrites::kGrace).empty());
    // A connection with nothing under way adds nothing.
    late.lost({}, kBegin + seconds(20));
    EXPECT_EQ(late.due(kBegin + seconds(10) + LateWrites::kGrace),
              (std::vector<Range>{{0, 8192}, {65536, 512}}));
    EXPECT_FALSE(late.none());
    late.forget();
    EXPECT_TRUE(late.none());
}

}  // namespace nbdm
