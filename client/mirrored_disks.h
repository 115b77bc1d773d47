// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/auto_connections.h"
#include "client/cancellation.h"
#include "client/connection_shares.h"
#include "client/convergence.h"
#include "client/disk_mirror.h"
#include "client/job_limits.h"
#include "client/job_record.h"
#include "client/job_status.h"
#include "client/writer_hold.h"

namespace nbdm {

// The disks of one mirror job, which are copied side by side and handed over together: what a
// DiskMirror does, of all of them.
//
// Threads: the job's. Fails as DiskMirror does.
class MirroredDisks {
  public:
    // `disks`: at least one, exports of one server. The others outlive it.
    MirroredDisks(const std::string& job, const std::vector<DiskMirror::Options>& disks,
                  JobStatus& status, JobLimits& limits, const Cancellation& cancellation);

    // All of them or, when it throws before anything was changed, none.
    void begin();
    // Goes on with what another process has recorded. False: the disks have moved already, to the
    // end of the job.
    [[nodiscard]] bool resume();
    // The same within this process, once connections are lost.
    void connect_again();
    // Ends all connections: whoever waits for the targets may open them.
    void disconnect();
    // The sources are handed over: tells the targets that wait for that, also again. One that
    // cannot be reached is tried for `patience`, or until the job is cancelled; then throws
    // JobError, and never Cancelled: another process has to go on.
    void commit(std::chrono::seconds patience);
    // Nobody will go on with them: the trackers and the record are removed.
    void forget() noexcept;
    // Trackers and a record stand: another process can go on.
    [[nodiscard]] bool can_be_resumed() const { return record_.stands() && !moved_elsewhere_; }

    // A round of each; bytes and rates are sums, times those of the slowest. `tick` calls look()
    // now and then.
    DiskMirror::Round catch_up(DiskMirror::Haste haste,
                               const std::function<void(DiskMirror::Step)>& tick);
    [[nodiscard]] bool are_checked() const;
    // Some target is not a copy of anything yet.
    [[nodiscard]] bool first_round() const;
    // Grows with everything that is done.
    [[nodiscard]] std::uint64_t done_bytes() const;
    // As DiskMirror's, of all of them.
    [[nodiscard]] std::uint64_t durable_steps() const;
    [[nodiscard]] std::uint64_t sent_bytes() const;
    [[nodiscard]] std::uint64_t zeroed_bytes() const;
    // Nothing when it is not known of all. What is seen while a round copies is what the number of
    // connections is tuned by, where that is left to the job.
    [[nodiscard]] std::optional<DiskMirror::Look> look();

    void throttle(Convergence::Delay delay, std::chrono::milliseconds lease);
    [[nodiscard]] std::vector<WriterHold::Disk> to_hold() const;
    // "SOURCE had moved to PLACE", of the first, "and N more", once resume() has found that.
    [[nodiscard]] std::string moved_sentence() const;

  private:
    void forget_trackers() noexcept;
    // Throws JobError when a source is in service again, and its server soon says so.
    void check_not_taken_back();
    void commit_once();
    void record_epoch();
    [[nodiscard]] std::optional<RecordedJob> earlier_job() const;

    const std::string job_;
    JobStatus& status_;
    JobLimits& limits_;
    const Cancellation& cancellation_;
    ConnectionShares connections_;
    AutoConnections auto_connections_;
    JobRecord record_;
    Session session_;
    bool moved_elsewhere_ = false;
    std::vector<std::unique_ptr<DiskMirror>> disks_;
};

// With the sources and the targets that the job was begun with; `named` has one disk without them
// when the user has named none. Throws JobError when nothing is recorded of it, or when others are
// named.
[[nodiscard]] std::vector<DiskMirror::Options> as_recorded(
    const std::string& job, const std::vector<DiskMirror::Options>& named);

}  // namespace nbdm
