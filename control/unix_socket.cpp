// SPDX-License-Identifier: Apache-2.0
#include "control/unix_socket.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "iothread/check.h"

namespace nbdm {

namespace {

constexpr int kBacklog = 128;

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
        throw errno_error(ENAMETOOLONG, "cannot use the socket '" + path +
                                            "', since a socket's path has at most " +
                                            std::to_string(sizeof(address.sun_path) - 1) +
                                            " bytes");
    }
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
}

UniqueFd make_socket(int flags) {
    return UniqueFd(check_errno(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0),
                                "cannot make a Unix socket"));
}

// Until it is closed. Of two processes that want one path the second then finds the first one
// listening, never bound and not listening yet. Without a lock where the directory cannot be read,
// or somebody else keeps it locked for longer than a socket takes to be made.
UniqueFd lock_directory_of(const std::string& path) {
    constexpr int kTries = 200;
    constexpr int kPauseMs = 10;
    const std::size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    UniqueFd opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (int i = 0; opened.valid() && i < kTries && ::flock(opened.get(), LOCK_EX | LOCK_NB) < 0;
         ++i) {
        ::poll(nullptr, 0, kPauseMs);
    }
    return opened;
}

// 0 or an errno: ECONNREFUSED where nobody listens any more.
int error_of_connecting(const sockaddr_un& address) {
    const UniqueFd probe = make_socket(SOCK_NONBLOCK);
    return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) < 0
               ? errno
               : 0;
}

bool answers(const sockaddr_un& address) {
    const int error = error_of_connecting(address);
    return error == 0 || error == EAGAIN;  // its backlog is full
}

// What is in the way at `path`; null for a socket that nobody listens on any more.
const char* obstacle_at(const std::string& path, const sockaddr_un& address) {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
        return "a file that is no socket has that name";
    }
    switch (error_of_connecting(address)) {
        case ECONNREFUSED:
            return nullptr;
        case 0:
        case EAGAIN:
            return "another process listens there";
        default:
            return "another process may listen there";
    }
}

// 0 or an errno.
int bind_with_mode(int fd, const sockaddr_un& address, std::optional<mode_t> mode) {
    const mode_t before = ::umask(0077);
    ::umask(mode ? 0777 & ~*mode : before);
    const int result = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    const int error = errno;
    ::umask(before);
    return result < 0 ? error : 0;
}

}  // namespace

bool unix_socket_answers(const std::string& path) {
    return answers(address_of(path));
}

UniqueFd bind_unix_socket(const std::string& path, std::optional<mode_t> mode) {
    const std::string what = "cannot listen on '" + path + "'";
    const sockaddr_un address = address_of(path);
    const UniqueFd locked = lock_directory_of(path);
    UniqueFd socket = make_socket(SOCK_NONBLOCK);
    int error = bind_with_mode(socket.get(), address, mode);
    if (error == EADDRINUSE) {
        if (const char* obstacle = obstacle_at(path, address)) {
            throw errno_error(error, what + ", since " + obstacle);
        }
        check_errno(::unlink(path.c_str()),
                    "cannot remove the socket '" + path + "', which a process that died has left");
        error = bind_with_mode(socket.get(), address, mode);
    }
    if (error != 0) {
        throw errno_error(error,
                          error == ENOENT ? what + ", since its directory is missing" : what);
    }
    check_errno(::listen(socket.get(), kBacklog), what);
    return socket;
}

}  // namespace nbdm
