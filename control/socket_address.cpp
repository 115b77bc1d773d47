// SPDX-License-Identifier: Apache-2.0
#include "control/socket_address.h"

#include <array>
#include <cstring>
#include <netdb.h>

#include <netinet/in.h>

namespace nbdm {

std::string host_and_port(const sockaddr* address, socklen_t length) {
    sockaddr_in mapped{};
    if (sockaddr_in6 wide{}; address->sa_family == AF_INET6 && length == sizeof(wide)) {
        std::memcpy(&wide, address, sizeof(wide));
        if (IN6_IS_ADDR_V4MAPPED(&wide.sin6_addr)) {
            mapped.sin_family = AF_INET;
            mapped.sin_port = wide.sin6_port;
            std::memcpy(&mapped.sin_addr, &wide.sin6_addr.s6_addr[12], sizeof(mapped.sin_addr));
            address = reinterpret_cast<const sockaddr*>(&mapped);
            length = sizeof(mapped);
        }
    }
    std::array<char, NI_MAXHOST> host{};
    std::array<char, NI_MAXSERV> port{};
    if (::getnameinfo(address, length, host.data(), host.size(), port.data(), port.size(),
                      NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return "?";
    }
    const bool v6 = std::strchr(host.data(), ':') != nullptr;
    return (v6 ? "[" + std::string(host.data()) + "]" : std::string(host.data())) + ":" +
           port.data();
}

}  // namespace nbdm
