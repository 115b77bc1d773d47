// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/cancellation.h"
#include "client/copy.h"
#include "client/disk_status.h"
#include "client/engine.h"
#include "client/job_limits.h"
#include "client/job_record.h"
#include "client/source_server.h"

namespace nbdm {

// One disk of a mirror job: its tracker, its connections, and rounds of freeze, copy, flush,
// acknowledge over them. What is still to be copied is known by the tracker alone, so that any
// round can be broken off, by a lost connection or the end of this process, and the next one does
// what was not durable by then.
//
// Threads: the job's. Fails: JobError, ConnectionLost when connect_again() may help, Cancelled,
//          std::system_error.
class DiskMirror {
  public:
    using Clock = std::chrono::steady_clock;

    struct Options {
        CopyOptions copy;  // the source is a server's export
        std::string job;
        std::uint32_t granularity_bytes = 64 << 10;
    };
    // All but `options` outlive it.
    DiskMirror(Options options, DiskStatus& status, JobLimits& limits,
               const Cancellation& cancellation);

    // Starts a tracker in which everything is dirty.
    void begin();
    // Goes on with what another process has recorded. False: its disk has moved away already, to
    // the end of its job.
    [[nodiscard]] bool resume();
    // The same within this process, once connections are lost.
    void connect_again();
    // Ends all connections: whoever waits for the target may open it.
    void disconnect();
    // Nobody will go on with it: the tracker and the record are removed.
    void forget() noexcept;
    // A tracker and a record stand: another process can go on.
    [[nodiscard]] bool can_be_resumed() const noexcept { return record_.has_value(); }

    // As long as writers wait, nothing is done for the case that the round is broken off.
    enum class Haste { none, writers_wait };
    struct Round {
        std::uint64_t dirty_bytes = 0;  // that the freeze found
        double dirty_bytes_per_s = 0;   // since the freeze before
        Clock::duration copying{};
        Clock::duration flushing{};
    };
    // What is waited for.
    enum class Step { copying, flushing };
    // `tick` is called now and then meanwhile.
    Round catch_up(Haste haste, const std::function<void(Step)>& tick);
    // Nothing was written since the last round.
    [[nodiscard]] bool is_clean();
    // Until the first round is through, the target is not a copy of anything.
    [[nodiscard]] bool first_round() const noexcept { return first_round_; }

    struct Look {
        std::uint64_t dirty_bytes = 0;
        std::optional<double> dirty_bytes_per_s;  // since the last freeze; nothing: not known
    };
    // Looks at the source's server: what is dirty is shown and returned, unless it did not answer;
    // throws when the disk is not its any more.
    std::optional<Look> look();

    [[nodiscard]] SourceServer& server() noexcept { return server_; }
    [[nodiscard]] const Location& source() const noexcept { return options_.copy.source; }
    [[nodiscard]] const Location& target() const noexcept { return options_.copy.target; }

  private:
    enum class Opening { first, again };
    [[nodiscard]] SourceServer::About check_source();
    void open_sides(const SourceServer::About& about, Opening opening);
    void start_tracker(bool compare);
    void connect();
    void take_up(const JobRecord& record);
    void acknowledge_progress(std::uint64_t generation);

    const Options options_;
    DiskStatus& status_;
    JobLimits& limits_;
    const Cancellation& cancellation_;
    const JobRecordFile record_file_;
    SourceServer server_;
    std::optional<JobRecord> record_;

    // The connections, in the order in which they are made.
    std::unique_ptr<Side> source_;
    std::unique_ptr<Side> target_;
    std::unique_ptr<Scout> dirtiness_;
    // What the target said before the first round over these connections; then nothing is known,
    // since old data may lie under a new hole.
    std::unique_ptr<TargetZeroes> target_zeroes_;
    std::unique_ptr<Engine> engine_;

    bool first_round_ = true;
    std::uint64_t acknowledged_to_ = 0;  // in this generation
    Clock::time_point last_freeze_;
};

// With the source and the target that the job was begun with. Throws JobError when nothing is
// recorded of it, or when the options name others.
[[nodiscard]] DiskMirror::Options as_recorded(DiskMirror::Options options);

}  // namespace nbdm
