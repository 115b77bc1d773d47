// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "client/source_server.h"

namespace nbdm {

// What another process needs to know to go on with a mirror that died. What is still to be copied
// is not in it: the tracker at the source's server knows that, as of the target's last flush.
struct JobRecord {
    std::string source;  // as they were named
    std::string target;
    std::uint64_t size_bytes = 0;
    SourceServer::Tracker tracker;
    // The tracker is one that was started later than the copy: of what it calls dirty, much may be
    // at the target already.
    bool compare = false;
};

// The record of one job, a file in the state directory, replaced at once and for good.
//
// Threads: one at a time. Fails: std::system_error or JobError that names the file.
class JobRecordFile {
  public:
    explicit JobRecordFile(const std::string& job);

    void write(const JobRecord& record) const;
    // Nothing when there is none.
    [[nodiscard]] std::optional<JobRecord> read() const;
    void remove() const noexcept;

  private:
    const std::string path_;
};

}  // namespace nbdm
