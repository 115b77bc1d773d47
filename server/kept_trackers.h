// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "control/disk_identity.h"
#include "server/export.h"

namespace nbdm {

// The trackers that a server which ended cleanly has kept for its next start, a file for each disk.
//
// Invariant: the disk has not been written to since the record of its trackers was made, or the
// record is not used. A record is made when the disk's clients are gone and the disk is synced, is
// removed for good before the first client can come, and is only used when the disk's stamp is the
// same.
//
// Threads: one at a time. What fails is logged, and costs the trackers: their mirrors compare.
class KeptTrackers {
  public:
    explicit KeptTrackers(const std::string& state_dir) : directory_(state_dir + "/trackers") {}

    // Nobody writes to it any more.
    void save(const Export& served) const;
    // Nobody has written to it yet.
    void restore(Export& served) const;
    // Those that were kept are of no use any more.
    void drop(const Export& served) const;

  private:
    [[nodiscard]] std::string path_for(const DiskIdentity& disk) const;
    // What was kept for a disk, if anything, which is there no more when this returns.
    [[nodiscard]] std::optional<std::string> take(const DiskIdentity& disk) const;

    const std::string directory_;
};

}  // namespace nbdm
