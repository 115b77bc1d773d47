// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "iothread/disk_file.h"

namespace nbdm {

// The name of the image format that begins with these bytes ("qcow2"); empty where none is known.
//
// Threads: any.
[[nodiscard]] std::string_view image_format(std::string_view head) noexcept;
// The same of a disk; empty when it cannot be read.
[[nodiscard]] std::string_view image_format_of(const DiskFile& file) noexcept;

}  // namespace nbdm
