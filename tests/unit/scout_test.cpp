// SPDX-License-Identifier: Apache-2.0
#include "client/scout.h"

#include <gtest/gtest.h>

namespace nbdm {

TEST(DirtyExtents, CoverTheDiskAndAreDirtyWhereItIsSaid) {
    std::vector<std::pair<Range, bool>> found;
    for (const Extent& extent : dirty_extents({{0, 512}, {4096, 512}, {4352, 1024}}, 8192)) {
        EXPECT_EQ(extent.allocation, Allocation::unknown);
        found.emplace_back(extent.range, extent.dirty);
    }
    const std::vector<std::pair<Range, bool>> expected{{{0, 512}, true},
                                                       {{512, 3584}, false},
                                                       {{4096, 512}, true},
                                                       {{4608, 768}, true},
                                                       {{5376, 2816}, false}};
    EXPECT_EQ(found, expected);
}

}  // namespace nbdm
