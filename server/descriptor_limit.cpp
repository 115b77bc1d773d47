// SPDX-License-Identifier: Apache-2.0
#include "server/descriptor_limit.h"

#include <stdexcept>
#include <string>

#include <sys/resource.h>

#include "control/log.h"

namespace nbdm {

namespace {

// A connection has a socket, a ring, a wake-up and its own opening of the disk. What is left is for
// the control socket, the disks and records: without descriptors nobody could end a hold.
constexpr std::size_t kFdsOfConnection = 4;
constexpr std::size_t kReservedFds = 128;
// What one mirror makes by default: with fewer the server would be of no use to it.
constexpr std::size_t kLeastConnections = 4;

}  // namespace

std::size_t affordable_connections(std::size_t wanted, std::size_t exports) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return wanted;
    }
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);  // as far as this process may; looked at anew below
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const std::size_t fds = limit.rlim_cur;
    const std::size_t reserved = kReservedFds + exports;
    const std::size_t most = fds > reserved ? (fds - reserved) / kFdsOfConnection : 0;
    if (most >= wanted) {
        return wanted;
    }
    const std::string why = ": this process may only have " + std::to_string(fds) +
                            " descriptors (ulimit -n, LimitNOFILE=)";
    if (most < kLeastConnections) {
        const std::size_t needed = reserved + kLeastConnections * kFdsOfConnection;
        throw std::runtime_error("cannot serve " + std::to_string(kLeastConnections) +
                                 " clients, as many as one mirror has connections" + why + ", " +
                                 std::to_string(needed) + " are needed");
    }
    log_warning("no more than " + std::to_string(most) + " clients at a time instead of " +
                std::to_string(wanted) + why);
    return most;
}

}  // namespace nbdm
