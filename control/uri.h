// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace nbdm {

// Threads: any.

// Percent-encodes everything but unreserved characters (RFC 3986): for one path segment.
[[nodiscard]] std::string percent_encode(std::string_view text);
// The same, but slashes stay: for a file path in a query.
[[nodiscard]] std::string percent_encode_path(std::string_view text);
// A malformed escape stays as it is.
[[nodiscard]] std::string percent_decode(std::string_view text);

}  // namespace nbdm
