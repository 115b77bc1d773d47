// SPDX-License-Identifier: Apache-2.0
#include "control/http_routes.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

TEST(HttpRoutes, PathFitsAShapeSegmentBySegment) {
    EXPECT_TRUE(has_shape({"v1", "exports"}, "/v1/exports"));
    EXPECT_FALSE(has_shape({"v1", "export"}, "/v1/exports"));
    EXPECT_FALSE(has_shape({"v1", "exportsx"}, "/v1/exports"));
    EXPECT_FALSE(has_shape({"v1"}, "/v1/exports"));
    EXPECT_FALSE(has_shape({"v1", "exports", ""}, "/v1/exports"));
    EXPECT_FALSE(has_shape({}, "/v1/exports"));
    EXPECT_FALSE(has_shape({""}, "/v1"));
}

TEST(HttpRoutes, AsteriskIsOneSegmentWhateverIsInIt) {
    for (const char* name : {"vm1", "", "a/b", "*", "hold"}) {
        EXPECT_TRUE(has_shape({"v1", name, "hold"}, "/v1/*/hold")) << name;
    }
    EXPECT_FALSE(has_shape({"v1", "hold"}, "/v1/*/hold"));
    EXPECT_FALSE(has_shape({"v1", "a", "b", "hold"}, "/v1/*/hold"));
    EXPECT_FALSE(has_shape({"v1", "*"}, "/v1/a")) << "only a shape has asterisks";
}

}  // namespace
}  // namespace nbdm
