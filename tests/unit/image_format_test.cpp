// SPDX-License-Identifier: Apache-2.0
#include "server/image_format.h"

#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

TEST(ImageFormat, IsToldByTheFirstBytes) {
    const std::string rest(4096, '\0');
    EXPECT_EQ(image_format("QFI\xfb" + rest), "qcow2");
    EXPECT_EQ(image_format("KDMV" + rest), "VMDK");
    EXPECT_EQ(image_format("vhdxfile" + rest), "VHDX");
    EXPECT_EQ(image_format("conectix" + rest), "VHD");
}

TEST(ImageFormat, WhatOnlyResemblesOneIsRaw) {
    const std::string rest(4096, '\0');
    for (const std::string& head : {std::string(), rest, std::string("QFI"), "QFI\xfa" + rest,
                                    " QFI\xfb" + rest, " KDMV" + rest, "kdmv" + rest}) {
        EXPECT_EQ(image_format(head), "") << head.substr(0, 8);
    }
}

TEST(ImageFormat, IsFoundInAFileHoweverShort) {
    const TemporaryDirectory directory;
    for (const std::string& content :
         {std::string("conectix"), "conectix" + std::string(9000, 'x')}) {
        std::ofstream(directory.file("disk")) << content;
        EXPECT_EQ(image_format_of(DiskFile(directory.file("disk"), {})), "VHD");
    }
    std::ofstream(directory.file("empty")).flush();
    EXPECT_EQ(image_format_of(DiskFile(directory.file("empty"), {})), "");
}

}  // namespace
}  // namespace nbdm
