// SPDX-License-Identifier: Apache-2.0
#include "server/nbd_wire.h"

#include <cerrno>
#include <cstring>

#include <gtest/gtest.h>

namespace nbdm::wire {

TEST(NbdWire, NumbersAreBigEndian) {
    const Big32 number = 0x01020304;
    const unsigned char expected[] = {1, 2, 3, 4};
    EXPECT_EQ(std::memcmp(&number, expected, 4), 0);
    EXPECT_EQ(std::uint32_t{number}, 0x01020304u);
    const Big64 large = 0xfedcba9876543210;
    EXPECT_EQ(std::uint64_t{large}, 0xfedcba9876543210);
    const Big16 small = 0xffee;
    EXPECT_EQ(std::uint16_t{small}, 0xffee);
}

TEST(NbdWire, StructuresHaveNoPadding) {
    EXPECT_EQ(sizeof(Greeting), 18u);
    EXPECT_EQ(sizeof(OptionHeader), 16u);
    EXPECT_EQ(sizeof(OptionReplyHeader), 20u);
    EXPECT_EQ(sizeof(InfoExport), 12u);
    EXPECT_EQ(sizeof(InfoBlockSize), 14u);
    EXPECT_EQ(sizeof(OffsetHoleFields), 12u);
    EXPECT_EQ(sizeof(ErrorFields), 6u);
}

TEST(NbdWire, EveryErrnoHasAnErrorThatMayBeSent) {
    EXPECT_EQ(error_from_errno(0), Error::none);
    EXPECT_EQ(error_from_errno(EDQUOT), Error::no_space);
    EXPECT_EQ(error_from_errno(EROFS), Error::perm);
    EXPECT_EQ(error_from_errno(ENXIO), Error::io);
    EXPECT_EQ(error_from_errno(ENOTSUP), Error::not_supported);
}

}  // namespace nbdm::wire
