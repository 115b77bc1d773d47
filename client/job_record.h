// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "client/source_server.h"

namespace nbdm {

// What another process needs to know to go on with a disk of a mirror that died. What is still to
// be copied is not in it: the tracker at the source's server knows that, as of the target's last
// flush.
struct DiskRecord {
    std::string source;  // as they were named
    std::string target;
    std::uint64_t size_bytes = 0;
    SourceServer::Tracker tracker;
    // The tracker is one that was started later than the copy: of what it calls dirty, much may be
    // at the target already.
    bool compare = false;
    // The target has to be told of the hand-over.
    bool incoming = false;
};

// The record of one job, a file in the state directory, replaced at once and for good.
//
// Threads: any. Fails: std::system_error or JobError that names the file.
class JobRecord {
  public:
    explicit JobRecord(const std::string& job);

    // What another process has written; nothing when there is none.
    [[nodiscard]] std::optional<std::vector<DiskRecord>> read() const;
    void write(std::vector<DiskRecord> disks);
    // One disk of what was written.
    void replace(std::size_t index, const DiskRecord& disk);
    void remove() noexcept;
    // It was written by this process.
    [[nodiscard]] bool written() const;

  private:
    void write_locked() const;

    const std::string path_;
    mutable std::mutex mutex_;  // guards disks_ and the file
    std::vector<DiskRecord> disks_;
};

}  // namespace nbdm
