// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

namespace nbdm {

// Whether every byte is zero. Stops at the first that is not; reads memory once. Threads: any.
[[nodiscard]] bool is_all_zero(std::span<const std::byte> bytes) noexcept;

}  // namespace nbdm
