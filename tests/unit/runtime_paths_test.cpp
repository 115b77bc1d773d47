// SPDX-License-Identifier: Apache-2.0
#include "control/runtime_paths.h"

#include <fstream>
#include <system_error>

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

mode_t mode_of(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

TEST(RuntimePaths, OwnVariableBeatsSystemdsBeatsTheDefault) {
    const ScopedVariable own("NBD_MIRROR_RUNTIME_DIR", "/own");
    const ScopedVariable systemds("RUNTIME_DIRECTORY", "/systemd");
    EXPECT_EQ(runtime_directory(), "/own");
    const ScopedVariable no_own("NBD_MIRROR_RUNTIME_DIR", nullptr);
    EXPECT_EQ(runtime_directory(), "/systemd");
    const ScopedVariable no_systemds("RUNTIME_DIRECTORY", nullptr);
    EXPECT_EQ(runtime_directory(), "/run/nbd-mirror");
}

TEST(RuntimePaths, OptionBeatsEveryVariableForState) {
    const ScopedVariable own("NBD_MIRROR_STATE_DIR", "/own");
    const ScopedVariable systemds("STATE_DIRECTORY", "/systemd");
    EXPECT_EQ(state_directory("/option"), "/option");
    EXPECT_EQ(state_directory(), "/own");
    const ScopedVariable no_own("NBD_MIRROR_STATE_DIR", nullptr);
    EXPECT_EQ(state_directory(), "/systemd");
    const ScopedVariable no_systemds("STATE_DIRECTORY", nullptr);
    EXPECT_EQ(state_directory(), "/var/lib/nbd-mirror");
}

TEST(RuntimePaths, EmptyVariableCountsAsUnset) {
    const ScopedVariable own("NBD_MIRROR_RUNTIME_DIR", "");
    const ScopedVariable systemds("RUNTIME_DIRECTORY", "/systemd");
    EXPECT_EQ(runtime_directory(), "/systemd");
}

TEST(RuntimePaths, FirstOfSystemdsListCounts) {
    const ScopedVariable own("NBD_MIRROR_RUNTIME_DIR", nullptr);
    const ScopedVariable systemds("RUNTIME_DIRECTORY", "/run/a:/run/b");
    EXPECT_EQ(runtime_directory(), "/run/a");
}

TEST(RuntimePaths, SocketsLieInTheRuntimeDirectory) {
    const ScopedVariable own("NBD_MIRROR_RUNTIME_DIR", "/r");
    EXPECT_EQ(default_server_socket(), "/r/server.sock");
    EXPECT_EQ(job_socket("vm1"), "/r/jobs/vm1.sock");
}

TEST(EnsureDirectory, MakesTheParentsAndGivesTheLastTheMode) {
    const TemporaryDirectory directory;
    ensure_directory(directory.file("a/b"), 0700);
    EXPECT_EQ(mode_of(directory.file("a/b")), 0700U);
    EXPECT_NO_THROW(ensure_directory(directory.file("a/b"), 0700));
}

TEST(EnsureDirectory, LeavesTheModeOfAnExistingOneAlone) {
    const TemporaryDirectory directory;
    ensure_directory(directory.file("a"), 0711);
    ::chmod(directory.file("a").c_str(), 0711);
    ensure_directory(directory.file("a"), 0700);
    EXPECT_EQ(mode_of(directory.file("a")), 0711U);
}

TEST(EnsureDirectory, RefusesAFileInTheWayAndNamesIt) {
    const TemporaryDirectory directory;
    std::ofstream(directory.file("file")) << "x";
    for (const char* name : {"file", "file/below"}) {
        try {
            ensure_directory(directory.file(name), 0700);
            ADD_FAILURE() << name << " was accepted";
        } catch (const std::system_error& error) {
            EXPECT_EQ(error.code().value(), ENOTDIR);
            EXPECT_NE(std::string(error.what()).find(directory.file("file")), std::string::npos);
        }
    }
}

}  // namespace
}  // namespace nbdm
