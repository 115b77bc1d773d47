// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <istream>
#include <string>

#include <sys/types.h>

#include "iothread/disk_file.h"

namespace nbdm {

// What this host itself does with a block device, as far as it has claimed it: "mounted at '/srv'",
// or, where it cannot be said more exactly, "in use on this host (...)". Empty: nothing, or it is
// no block device.
//
// Threads: any.
[[nodiscard]] std::string host_use_of(const DiskFile& file);

// The first place where a file system on `device` is mounted, written as in `mountinfo` (proc(5),
// /proc/PID/mountinfo); empty: nowhere.
[[nodiscard]] std::string mount_point_in(std::istream& mountinfo, dev_t device);

}  // namespace nbdm
