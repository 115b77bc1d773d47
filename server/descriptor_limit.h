// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace nbdm {

// As many clients as are `wanted` or, with a warning, as this process may have descriptors for,
// with so many exports; its limit is raised as far as it may be. Throws std::runtime_error where
// that would be too few for one mirror.
//
// Threads: at the start.
[[nodiscard]] std::size_t affordable_connections(std::size_t wanted, std::size_t exports);

}  // namespace nbdm
