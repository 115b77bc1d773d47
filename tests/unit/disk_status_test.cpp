// SPDX-License-Identifier: Apache-2.0
#include "client/disk_status.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

TEST(DiskStatus, MovedNeverPassesTheTotalAndNeverFalls) {
    DiskStatus status({"source", "target"});
    status.add_to_do(100);
    status.counters.moved_bytes = 150;  // a block was copied twice
    EXPECT_EQ(status.snapshot().moved_bytes, 100U);
    status.add_to_do(20);
    EXPECT_EQ(status.snapshot().moved_bytes, 120U);
    status.counters.moved_bytes = 90;
    EXPECT_EQ(status.snapshot().moved_bytes, 120U);
    EXPECT_EQ(status.snapshot().total_bytes, 120U);
}

TEST(DiskStatus, WhatIsForgottenIsAddedAnewAndMovedDoesNotFall) {
    DiskStatus status({"source", "target"});
    status.add_to_do(100);
    status.counters.moved_bytes = 60;
    status.forget_to_do();
    EXPECT_EQ(status.snapshot().total_bytes, 60U);
    status.add_to_do(70);
    status.counters.moved_bytes += 70;
    EXPECT_EQ(status.snapshot().moved_bytes, 130U);
    EXPECT_EQ(status.snapshot().total_bytes, 130U);
}

TEST(DiskStatus, AnUnknownRateIsNull) {
    const nlohmann::json json = to_json(DiskStatus({"source", "target"}).snapshot());
    EXPECT_TRUE(json.at("copy_rate_bytes_per_s").is_null());
    EXPECT_TRUE(json.at("dirty_rate_bytes_per_s").is_null());
    EXPECT_EQ(json.at("source"), "source");
}

}  // namespace
}  // namespace nbdm
