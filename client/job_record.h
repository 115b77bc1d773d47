// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "client/session.h"
#include "client/source_server.h"
#include "client/target_content.h"

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
    std::optional<TargetContent> content = {};  // of the target, when the copy began
    bool overwritten = false;  // once it was handed over: another mirror has filled the target
};

// What a job has recorded.
struct RecordedJob {
    Session session;
    std::vector<DiskRecord> disks;
};

// The record of one job, a file in the state directory, replaced at once and for good.
//
// Threads: any. Fails: std::system_error or JobError that names the file.
class JobRecord {
  public:
    explicit JobRecord(const std::string& job);

    // What another process has written; nothing when there is none.
    [[nodiscard]] std::optional<RecordedJob> read() const;
    // What was read is the job's own from now on.
    void take_up(RecordedJob job);
    void write(RecordedJob job);
    // One disk of what was written or taken up.
    void replace(std::size_t index, const DiskRecord& disk);
    // The session of what was written or taken up.
    void replace(const Session& session);
    // If it stands.
    void remove() noexcept;
    // It was written or taken up by this process.
    [[nodiscard]] bool stands() const;

  private:
    void write_locked(RecordedJob job);

    const std::string name_;
    const std::string path_;
    mutable std::mutex mutex_;        // guards job_ and the file
    std::optional<RecordedJob> job_;  // what stands in the file, for good
};

}  // namespace nbdm
