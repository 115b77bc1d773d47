// SPDX-License-Identifier: Apache-2.0
#include "control/size.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

TEST(Size, PlainDigitsAreBytes) {
    EXPECT_EQ(parse_size("0"), 0U);
    EXPECT_EQ(parse_size("4096"), 4096U);
    EXPECT_EQ(parse_size("300B"), 300U);
}

TEST(Size, PrefixesArePowersOf1024) {
    EXPECT_EQ(parse_size("1K"), 1024U);
    EXPECT_EQ(parse_size("3M"), 3U << 20);
    EXPECT_EQ(parse_size("2G"), std::uint64_t{2} << 30);
    EXPECT_EQ(parse_size("5T"), std::uint64_t{5} << 40);
}

TEST(Size, LowerCaseAndLongUnitsMeanTheSame) {
    for (const char* text : {"64k", "64K", "64KB", "64kb", "64KiB", "64kib"}) {
        EXPECT_EQ(parse_size(text), 65536U) << text;
    }
}

TEST(Size, GarbageIsRefused) {
    for (const char* text : {"", "K", "B", "-1", "+1", " 1", "1 ", "1 K", "1.5G", "1X", "1KK",
                             "1iB", "1KiBB", "1Ki", "0x10", "1e3", "K1"}) {
        EXPECT_EQ(parse_size(text), std::nullopt) << text;
    }
}

TEST(Size, WhatDoesNotFitIn63BitsIsRefused) {
    EXPECT_EQ(parse_size("9223372036854775807"), 9223372036854775807U);
    EXPECT_EQ(parse_size("9223372036854775808"), std::nullopt);
    EXPECT_EQ(parse_size("8388607T"), std::uint64_t{8388607} << 40);
    EXPECT_EQ(parse_size("8388608T"), std::nullopt);
    EXPECT_EQ(parse_size("99999999999999999999999"), std::nullopt);
    EXPECT_EQ(parse_size("18446744073709551616"), std::nullopt);
}

TEST(Size, IsWrittenWithOneDecimalOfTheFittingUnit) {
    EXPECT_EQ(format_size(0), "0 B");
    EXPECT_EQ(format_size(300), "300 B");
    EXPECT_EQ(format_size(1536), "1.5 KiB");
    EXPECT_EQ(format_size(1.5 * (1 << 30)), "1.5 GiB");
}

TEST(Size, RoundingUpNeverWrites1024OfAUnit) {
    EXPECT_EQ(format_size(1024.0 * 1024 - 1), "1.0 MiB");
    EXPECT_EQ(format_size(1023), "1023 B");
}

TEST(Time, IsWrittenInTheTwoUnitsThatMatter) {
    EXPECT_EQ(format_time(0.2), "0 s");
    EXPECT_EQ(format_time(59.7), "1 min 0 s");
    EXPECT_EQ(format_time(3599), "59 min 59 s");
    EXPECT_EQ(format_time(3 * 3600 + 5 * 60 + 59), "3 h 5 min");
}

}  // namespace
}  // namespace nbdm
