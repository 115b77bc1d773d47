// SPDX-License-Identifier: Apache-2.0
#include "client/location.h"

#include <fstream>
#include <stdexcept>

#include <gtest/gtest.h>

#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

TEST(Location, WhatBeginsWithAnNbdSchemeIsAUri) {
    for (const char* uri : {"nbd://host/x", "nbds://host", "nbd+unix:///x?socket=/s",
                            "nbds+unix:///?socket=/s", "nbd+vsock://2/"}) {
        EXPECT_EQ(Location::parse(uri).kind, Location::Kind::nbd_uri) << uri;
        EXPECT_EQ(Location::parse(uri).path_or_uri, uri);
    }
}

TEST(Location, EverythingElseWithoutASchemeIsAPath) {
    for (const char* path : {"disk.img", "/dev/sda", "a:b", "./nbd:host", "./server:x"}) {
        EXPECT_EQ(Location::parse(path).kind, Location::Kind::path) << path;
    }
}

TEST(Location, AnotherSchemeAndNothingAreRefused) {
    // --create would make files of these names.
    EXPECT_THROW((void)Location::parse("tcp:host:10809"), std::invalid_argument);
    EXPECT_THROW((void)Location::parse("nbd:host:10809"), std::invalid_argument);
    EXPECT_THROW((void)Location::parse("http://host/x"), std::invalid_argument);
    EXPECT_THROW((void)Location::parse(""), std::invalid_argument);
}

TEST(Location, AnExportHasTheDefaultControlSocketUnlessOneIsGiven) {
    const ScopedVariable runtime("NBD_MIRROR_RUNTIME_DIR", "/run/here");
    const Location location = Location::parse("server:vm1");
    EXPECT_EQ(location.kind, Location::Kind::server_export);
    EXPECT_EQ(location.export_name, "vm1");
    EXPECT_EQ(location.control_socket, "/run/here/server.sock");
    EXPECT_EQ(Location::parse("server:").export_name, "");
}

TEST(Location, AnExportsNameEndsAtTheLastAt) {
    struct Case {
        const char* text;
        const char* name;
        const char* socket;
    };
    for (const Case& each :
         {Case{"server:vm@/tmp/c", "vm", "/tmp/c"},
          Case{"server:vm@run/c.sock", "vm", "run/c.sock"},
          Case{"server:a@b@/tmp/c", "a@b", "/tmp/c"}, Case{"server:@/tmp/c", "", "/tmp/c"}}) {
        const Location location = Location::parse(each.text);
        EXPECT_EQ(location.export_name, each.name) << each.text;
        EXPECT_EQ(location.control_socket, each.socket) << each.text;
    }
}

TEST(SameDisk, AFileIsKnownUnderEveryNameOfIt) {
    const TemporaryDirectory directory;
    std::ofstream(directory.file("disk")) << "x";
    std::filesystem::create_hard_link(directory.file("disk"), directory.file("other"));
    std::ofstream(directory.file("copy")) << "x";
    EXPECT_TRUE(is_same_disk(Location::parse(directory.file("other")), directory.file("disk"), {}));
    EXPECT_FALSE(is_same_disk(Location::parse(directory.file("copy")), directory.file("disk"), {}));
}

TEST(SameDisk, AUriIsComparedByPlaceAndExport) {
    const TemporaryDirectory directory;
    std::ofstream(directory.file("a b.sock")) << "";
    const std::string path = directory.file("a b.sock");
    const std::string served = "nbd+unix:///vm1?socket=" + directory.file("a%20b.sock");
    const std::vector<std::string> uris = {served, "nbd://localhost:10809/vm1"};
    const auto same = [&](const std::string& target) {
        return is_same_disk(Location::parse(target), "/none", uris);
    };
    EXPECT_TRUE(same(served));
    EXPECT_TRUE(same("nbd+unix:///vm1?socket=" + path));
    EXPECT_TRUE(same("nbd+unix:///vm%31?socket=" + path));
    EXPECT_TRUE(same("nbd://localhost/vm1"));
    EXPECT_FALSE(same("nbd+unix:///vm2?socket=" + path));
    EXPECT_FALSE(same("nbd://localhost:10810/vm1"));
    EXPECT_FALSE(same("nbd://otherhost/vm1"));
}

}  // namespace
}  // namespace nbdm
