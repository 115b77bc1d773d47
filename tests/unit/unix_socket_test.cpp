// SPDX-License-Identifier: Apache-2.0
#include "control/unix_socket.h"

#include <cstring>
#include <fstream>
#include <system_error>
#include <unistd.h>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <gtest/gtest.h>

#include "control/durable_file.h"
#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

int error_of_binding(const std::string& path, const std::string& reason) {
    try {
        const UniqueFd socket = bind_unix_socket(path, 0600);
        return 0;
    } catch (const std::system_error& error) {
        EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
        EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
        return error.code().value();
    }
}

TEST(UnixSocket, HasItsModeWhateverTheUmask) {
    const TemporaryDirectory directory;
    const mode_t before = ::umask(0);
    const UniqueFd narrow = bind_unix_socket(directory.file("narrow"), 0600);
    ::umask(0777);
    const UniqueFd wide = bind_unix_socket(directory.file("wide"), 0666);
    const mode_t left = ::umask(before);
    EXPECT_EQ(left, 0777U) << "the umask was not put back";
    struct stat status {};
    ASSERT_EQ(::stat(directory.file("narrow").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    ASSERT_EQ(::stat(directory.file("wide").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0666U);
}

TEST(UnixSocket, LiveOneIsRefusedAndGoesOnListening) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("s");
    const UniqueFd first = bind_unix_socket(path, 0600);
    EXPECT_EQ(error_of_binding(path, "another process listens there"), EADDRINUSE);
    EXPECT_TRUE(unix_socket_answers(path));
}

TEST(UnixSocket, OneThatNobodyListensOnIsReplaced) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("s");
    { const UniqueFd dead = bind_unix_socket(path, 0600); }
    EXPECT_FALSE(unix_socket_answers(path));
    const UniqueFd second = bind_unix_socket(path, 0600);
    EXPECT_TRUE(unix_socket_answers(path));
}

TEST(UnixSocket, LiveOneThatTakesNoConnectionsIsRefusedAndStays) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("s");
    const UniqueFd datagrams(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    ASSERT_EQ(::bind(datagrams.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
              0);
    EXPECT_EQ(error_of_binding(path, "another process may listen there"), EADDRINUSE);
    EXPECT_EQ(::access(path.c_str(), F_OK), 0);
}

TEST(UnixSocket, FileOfAnotherKindIsRefusedAndStays) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("precious");
    std::ofstream(path) << "data";
    EXPECT_EQ(error_of_binding(path, "a file that is no socket"), EADDRINUSE);
    EXPECT_EQ(read_file(path), "data");
}

TEST(UnixSocket, PathThatDoesNotFitIsRefused) {
    const TemporaryDirectory directory;
    EXPECT_EQ(error_of_binding(directory.file(std::string(120, 'x')), "107 bytes"), ENAMETOOLONG);
}

TEST(UnixSocket, MissingDirectoryIsNamed) {
    const TemporaryDirectory directory;
    EXPECT_EQ(error_of_binding(directory.file("missing/s"), "its directory is missing"), ENOENT);
}

}  // namespace
}  // namespace nbdm
