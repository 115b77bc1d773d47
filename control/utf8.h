// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nbdm {

// Names come from command lines, sockets and file systems, and go into JSON and metrics, whose
// readers refuse all of it for one that is not UTF-8.
//
// Threads: any.

[[nodiscard]] bool is_utf8(const std::string& text);
// What is not UTF-8 becomes U+FFFD.
[[nodiscard]] std::string as_utf8(const std::string& text);

}  // namespace nbdm
