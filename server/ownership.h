// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/disk_identity.h"
#include "server/export.h"

namespace nbdm {

// What is known of a disk that has moved away.
struct MoveRecord {
    DiskIdentity disk;
    std::string export_name;
    std::string moved_to;  // a URI, as the mirror gave it; may be empty
    std::string job;
    std::string moved_at;  // UTC, ISO 8601
};

// Who owns a disk, recorded durably: one small JSON file for each disk that has moved away, found
// by the disk's identity, so that another export name or path does not lead around it.
//
// Threads: one at a time. Fails: std::system_error or std::runtime_error that names the file.
class OwnershipRecords {
  public:
    // The directory is made by check_writable() or with the first record.
    explicit OwnershipRecords(const std::string& state_dir) : directory_(state_dir + "/moved") {}

    // Throws when no move could be recorded.
    void check_writable() const;
    // Durable when it returns; when it throws, the disk has not moved.
    void record_move(const Export& moved, const std::string& moved_to,
                     const std::string& job) const;
    // What is recorded of this disk, if anything. A record that cannot be read is no answer:
    // throws.
    [[nodiscard]] std::optional<MoveRecord> find(const DiskFile& file) const;
    // The disk is served here again: what is recorded of it no longer counts.
    void take_back(const DiskFile& file) const;

  private:
    struct Stored {
        std::string path;
        MoveRecord record;
    };
    [[nodiscard]] std::vector<Stored> records_of(const DiskFile& file) const;

    const std::string directory_;
};

}  // namespace nbdm
