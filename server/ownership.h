// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "server/export.h"

namespace nbdm {

// What is known of a disk that has moved away.
struct MoveRecord {
    std::string export_name;
    std::string path;      // as the server opened it
    std::string moved_to;  // a URI, as the mirror gave it
    std::string job;
    std::string moved_at;  // UTC, ISO 8601
};

// Who owns a disk, recorded durably: one small JSON file per disk that has moved away, found by
// the disk's identity (device, inode and time of birth, or device number), so that another export
// name or path does not lead around it.
//
// Threads: one at a time. Fails: std::system_error that names the file.
class OwnershipRecords {
  public:
    // The directory is made when the first record is written.
    explicit OwnershipRecords(std::string state_dir)
        : directory_(std::move(state_dir) + "/moved") {}

    // Durable when it returns.
    void record_move(const Export& moved, const std::string& moved_to,
                     const std::string& job) const;
    // What is recorded of this disk, if anything. A record that cannot be read counts as a move.
    [[nodiscard]] std::optional<MoveRecord> find(const DiskFile& file) const;
    // The disk is served here again: its record is kept under another name and no longer counts.
    void take_back(const DiskFile& file) const;

  private:
    [[nodiscard]] std::string record_path(const DiskFile& file) const;
    const std::string directory_;
};

}  // namespace nbdm
