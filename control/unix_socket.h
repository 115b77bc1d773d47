// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include <sys/types.h>

#include "iothread/unique_fd.h"

namespace nbdm {

// A listening, non-blocking Unix socket at `path`, with this `mode` from the first moment; without
// one the process's umask decides. A socket left behind by a process that died is replaced; one
// that somebody listens on, or may (another user's, of another kind), and any other kind of file is
// refused.
//
// Fails: std::system_error that names the path. Threads: it changes the process's umask for a
// moment, so call it before others create files.
[[nodiscard]] UniqueFd bind_unix_socket(const std::string& path, std::optional<mode_t> mode);

// Whether somebody listens there.
[[nodiscard]] bool unix_socket_answers(const std::string& path);

}  // namespace nbdm
