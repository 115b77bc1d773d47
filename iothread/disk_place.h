// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nbdm {

// The kernel's name for the time from its start to its end; empty where it does not tell.
[[nodiscard]] std::string boot_id();

// What two programs can know by that they mean one disk, whatever they call it, on one machine as
// it runs: its boot, the numbers of the device or file, and when the file was made. Empty where the
// disk cannot be looked at, or the boot is not known: another machine's disks have the same
// numbers.
//
// Threads: any.
[[nodiscard]] std::string place_of(int fd);
[[nodiscard]] std::string place_of(const std::string& path);

}  // namespace nbdm
