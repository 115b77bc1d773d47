// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "control/disk_identity.h"
#include "server/disk_stamp.h"
#include "server/tracker.h"

namespace nbdm {

// The trackers of one disk as they are stored between a clean end of the server and its next start,
// in the byte order of the machine, which alone reads it:
//
//   magic, version
//   disk (path, storage, time of birth) and its stamp
//   last incarnation; of each tracker its properties, and its dirty words in stretches of words
//   that are not zero, so that little dirt takes little space
//   a checksum of all that
//
// Threads: any, each with its own.
struct TrackerRecord {
    DiskIdentity disk;
    DiskStamp stamp;
    TrackerSetImage trackers;

    [[nodiscard]] std::string encode() const;
    // Throws std::runtime_error with the reason unless it is whole, of this version, and what a
    // TrackerSet can take.
    [[nodiscard]] static TrackerRecord decode(std::string_view stored);
};

}  // namespace nbdm
