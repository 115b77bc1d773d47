// SPDX-License-Identifier: Apache-2.0
// The least that one side of a transfer can cost: a bare thread that receives pieces of 256 KiB
// from a Unix socket and writes them to a file, without a protocol. What nbd-mirror-server costs is
// compared with it (server_ratios.py).
//
// usage: floor receive SOCKET FILE    one connection, until its end; prints the CPU seconds
//        floor send SOCKET FILE       with the socket buffer that clients have who ask for none
//        floor send-wide SOCKET FILE  with the largest that the system gives
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "iothread/check.h"
#include "iothread/unique_fd.h"

namespace {

using nbdm::check_errno;
using nbdm::UniqueFd;

constexpr std::size_t kPieceBytes = 256 << 10;

sockaddr_un address_of(std::string_view path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(static_cast<char*>(address.sun_path), sizeof(address.sun_path) - 1);
    return address;
}

double cpu_seconds() {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

void receive(const char* socket_path, const char* file_path) {
    const UniqueFd file(
        check_errno(::open(file_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), "open"));
    const UniqueFd listener(
        check_errno(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    // Under its name only once somebody listens: there is one connection, and so no trying.
    const std::string unready = std::string(socket_path) + ".unready";
    const sockaddr_un address = address_of(unready);
    check_errno(
        ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
        "bind");
    check_errno(::listen(listener.get(), 1), "listen");
    check_errno(::rename(unready.c_str(), socket_path), "rename");
    const UniqueFd peer(check_errno(::accept(listener.get(), nullptr, nullptr), "accept"));
    std::vector<char> piece(kPieceBytes);
    const double before = cpu_seconds();
    off_t offset = 0;
    for (bool more = true; more;) {
        const ssize_t got = ::recv(peer.get(), piece.data(), piece.size(), MSG_WAITALL);
        check_errno(static_cast<int>(got), "recv");
        const auto filled = static_cast<std::size_t>(got);
        more = filled == piece.size();
        check_errno(static_cast<int>(::pwrite(file.get(), piece.data(), filled, offset)), "pwrite");
        offset += static_cast<off_t>(filled);
    }
    std::printf("%.6f\n", cpu_seconds() - before);
}

void send(const char* socket_path, const char* file_path, bool wide) {
    const UniqueFd file(check_errno(::open(file_path, O_RDONLY | O_CLOEXEC), "open"));
    const UniqueFd peer(check_errno(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    const sockaddr_un address = address_of(socket_path);
    check_errno(::connect(peer.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
                "connect");
    if (wide) {
        const int buffer_bytes = 2 * kPieceBytes;
        ::setsockopt(peer.get(), SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof(buffer_bytes));
    }
    std::vector<char> piece(kPieceBytes);
    for (;;) {
        const ssize_t got = ::read(file.get(), piece.data(), piece.size());
        check_errno(static_cast<int>(got), "read");
        if (got == 0) {
            return;
        }
        for (ssize_t sent = 0; sent < got;) {
            const ssize_t some = ::send(peer.get(), &piece[static_cast<std::size_t>(sent)],
                                        static_cast<std::size_t>(got - sent), MSG_NOSIGNAL);
            check_errno(static_cast<int>(some), "send");
            sent += some;
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view what = argc == 4 ? argv[1] : "";
    if (what == "receive") {
        receive(argv[2], argv[3]);
    } else if (what == "send" || what == "send-wide") {
        send(argv[2], argv[3], what == "send-wide");
    } else {
        std::fputs("usage: floor receive|send|send-wide SOCKET FILE\n", stderr);
        return 2;
    }
    return 0;
}
