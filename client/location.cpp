// SPDX-License-Identifier: Apache-2.0
#include "client/location.h"

#include <array>
#include <stdexcept>
#include <string_view>

#include "control/runtime_paths.h"

namespace nbdm {

namespace {

constexpr std::array<std::string_view, 8> kNbdSchemes = {
    "nbd://",       "nbds://",       "nbd+unix://", "nbds+unix://",
    "nbd+vsock://", "nbds+vsock://", "nbd+ssh://",  "nbds+ssh://"};
constexpr std::string_view kServerPrefix = "server:";

}  // namespace

Location Location::parse(const std::string& text) {
    if (text.empty()) {
        throw std::invalid_argument("a source and a target have a name");
    }
    for (const std::string_view scheme : kNbdSchemes) {
        if (text.starts_with(scheme)) {
            return {.kind = Kind::nbd_uri,
                    .text = text,
                    .path_or_uri = text,
                    .export_name = {},
                    .control_socket = {}};
        }
    }
    if (text.starts_with(kServerPrefix)) {
        const std::string rest = text.substr(kServerPrefix.size());
        // The last @: a name that contains one is given with its control socket.
        const std::size_t at = rest.rfind('@');
        return {.kind = Kind::server_export,
                .text = text,
                .path_or_uri = {},
                .export_name = rest.substr(0, at),
                .control_socket =
                    at == std::string::npos ? default_server_socket() : rest.substr(at + 1)};
    }
    if (text.find("://") != std::string::npos) {
        throw std::invalid_argument("'" + text +
                                    "' is neither a path nor a URI that begins with nbd://, "
                                    "nbds://, nbd+unix:// or the like");
    }
    return {.kind = Kind::path,
            .text = text,
            .path_or_uri = text,
            .export_name = {},
            .control_socket = {}};
}

}  // namespace nbdm
