// SPDX-License-Identifier: Apache-2.0
#include "control/uri.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

TEST(Uri, ASegmentSurvivesEncodingAndDecoding) {
    std::string every_byte;
    for (int byte = 0; byte < 256; ++byte) {
        every_byte.push_back(static_cast<char>(byte));
    }
    EXPECT_EQ(percent_decode(percent_encode(every_byte)), every_byte);
}

TEST(Uri, OnlyUnreservedCharactersStayPlain) {
    EXPECT_EQ(percent_encode("aZ09-._~"), "aZ09-._~");
    EXPECT_EQ(percent_encode("a/b c?d#e%f"), "a%2Fb%20c%3Fd%23e%25f");
    EXPECT_EQ(percent_encode("\xc3\xa4"), "%C3%A4");
}

TEST(Uri, SlashesStayInAPath) {
    EXPECT_EQ(percent_encode_path("/a b/c"), "/a%20b/c");
}

TEST(Uri, AMalformedEscapeStaysAsItIs) {
    EXPECT_EQ(percent_decode("100%"), "100%");
    EXPECT_EQ(percent_decode("%4"), "%4");
    EXPECT_EQ(percent_decode("%zz%41"), "%zzA");
}

TEST(Uri, IsDecodedOnce) {
    EXPECT_EQ(percent_decode("%2541"), "%41");
}

}  // namespace
}  // namespace nbdm
