// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace nbdm {

// A SOURCE or TARGET as the command line names it.
struct Location {
    enum class Kind { path, nbd_uri, server_export };

    Kind kind = Kind::path;
    std::string text;            // as given, for messages
    std::string path_or_uri;     // of a path or an NBD URI
    std::string export_name;     // of server:NAME[@CONTROL_SOCKET]
    std::string control_socket;  // likewise; the default one when none was given

    // Throws std::invalid_argument with a sentence.
    [[nodiscard]] static Location parse(const std::string& text);

    // Where a server's control socket has its export.
    [[nodiscard]] std::string control_path() const;
};

// Whether `target` is, by its name, the disk that a server serves from `path` at `uris`. Other
// names of one host are not resolved.
[[nodiscard]] bool is_same_disk(const Location& target, const std::string& path,
                                const std::vector<std::string>& uris);

}  // namespace nbdm
