// SPDX-License-Identifier: Apache-2.0
#include "client/location.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string_view>

#include <sys/stat.h>

#include "control/runtime_paths.h"
#include "control/uri.h"

namespace nbdm {

namespace {

constexpr std::array<std::string_view, 8> kNbdSchemes = {
    "nbd://",       "nbds://",       "nbd+unix://", "nbds+unix://",
    "nbd+vsock://", "nbds+vsock://", "nbd+ssh://",  "nbds+ssh://"};
// Other programs' ways to name a disk, as HOST:PORT is: taken for a path, --create would make a
// file of that name.
constexpr std::array<std::string_view, 7> kForeignPrefixes = {
    "tcp:", "unix:", "nbd:", "nbds:", "qemu:", "file:", "nbd+unix:"};
constexpr std::string_view kServerPrefix = "server:";

bool is_host_and_port(const std::string& text) {
    const std::size_t colon = text.rfind(':');
    return colon != std::string::npos && colon + 1 < text.size() &&
           text.find('/') == std::string::npos &&
           text.find_first_not_of("0123456789", colon + 1) == std::string::npos;
}

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
    if (is_host_and_port(text) ||
        std::any_of(kForeignPrefixes.begin(), kForeignPrefixes.end(),
                    [&](std::string_view prefix) { return text.starts_with(prefix); })) {
        throw std::invalid_argument("'" + text +
                                    "' is neither a path nor an NBD URI like nbd://HOST/EXPORT; "
                                    "for a file of that name write ./" +
                                    text);
    }
    return {.kind = Kind::path,
            .text = text,
            .path_or_uri = text,
            .export_name = {},
            .control_socket = {}};
}

std::string Location::control_path() const {
    return "/v1/exports/" + (export_name.empty() ? "-" : percent_encode(export_name));
}

namespace {

bool is_same_file(const std::string& a, const std::string& b) {
    struct stat left {};
    struct stat right {};
    if (::stat(a.c_str(), &left) != 0 || ::stat(b.c_str(), &right) != 0) {
        return false;
    }
    // A device may have several names.
    return S_ISBLK(left.st_mode) && S_ISBLK(right.st_mode)
               ? left.st_rdev == right.st_rdev
               : left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

// Where an NBD URI leads.
struct NbdAddress {
    std::string socket;  // of a Unix socket; empty otherwise
    std::string host;    // with the port
    std::string export_name;
};

NbdAddress address_of(const std::string& uri) {
    constexpr std::string_view kSocketKey = "socket=";
    NbdAddress address;
    const std::string rest = uri.substr(uri.find("://") + 3);
    const std::size_t question = rest.find('?');
    const std::string place = rest.substr(0, question);
    const std::size_t slash = place.find('/');
    address.host = place.substr(0, slash);
    if (slash != std::string::npos) {
        address.export_name = percent_decode(place.substr(slash + 1));
    }
    if (question != std::string::npos) {
        const std::size_t key = rest.find(kSocketKey, question);
        if (key != std::string::npos) {
            const std::size_t begin = key + kSocketKey.size();
            address.socket = percent_decode(rest.substr(begin, rest.find('&', begin) - begin));
        }
    }
    constexpr std::string_view kDefaultPort = ":10809";
    if (address.host.ends_with(kDefaultPort)) {
        address.host.resize(address.host.size() - kDefaultPort.size());
    }
    return address;
}

}  // namespace

bool is_same_disk(const Location& target, const std::string& path,
                  const std::vector<std::string>& uris) {
    if (target.kind == Location::Kind::path) {
        return is_same_file(target.path_or_uri, path);
    }
    const NbdAddress wanted = address_of(target.path_or_uri);
    return std::any_of(uris.begin(), uris.end(), [&](const std::string& uri) {
        const NbdAddress served = address_of(uri);
        return wanted.export_name == served.export_name &&
               wanted.socket.empty() == served.socket.empty() &&
               (wanted.socket.empty() ? wanted.host == served.host
                                      : is_same_file(wanted.socket, served.socket));
    });
}

}  // namespace nbdm
