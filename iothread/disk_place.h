// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "iothread/disk_file.h"

namespace nbdm {

// The kernel's name for the time from its start to its end; empty where it does not tell.
[[nodiscard]] std::string boot_id();

// What two programs can know by that they have opened one disk, whatever they call it, on one
// machine as it runs: its boot, and the numbers of the device or file. Empty where the boot is not
// known: another machine's disks have the same numbers.
//
// Threads: any. Throws std::system_error that names the path.
[[nodiscard]] std::string place_of(const DiskFile& file);

}  // namespace nbdm
