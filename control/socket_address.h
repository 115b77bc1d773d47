// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <sys/socket.h>

namespace nbdm {

// An address of IPv4 or IPv6 as "HOST:PORT", in numbers; what a socket for both families calls an
// address of IPv4 is that address. "?" when it is none.
//
// Threads: any.
[[nodiscard]] std::string host_and_port(const sockaddr* address, socklen_t length);

}  // namespace nbdm
