// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "client/cancellation.h"
#include "client/connection_shares.h"
#include "client/copy.h"
#include "client/disk_status.h"
#include "client/engine.h"
#include "client/job_record.h"
#include "client/pace.h"
#include "client/source_server.h"
#include "client/verification.h"

namespace nbdm {

// One disk of a mirror job: its tracker, its connections, and rounds of freeze, copy, flush,
// acknowledge over them. What is still to be copied is known by the tracker alone, so that any
// round can be broken off, by a lost connection or the end of this process, and the next one does
// what was not durable by then.
//
// Threads: one at a time, but for server() and look(): they are the job's, also while another
//          thread is in catch_up().
// Fails:   JobError, ConnectionLost when connect_again() may help, Cancelled, std::system_error.
class DiskMirror {
  public:
    using Clock = std::chrono::steady_clock;

    struct Options {
        CopyOptions copy;  // the source is a server's export
        std::string job;
        std::optional<std::uint32_t> granularity_bytes;  // of the dirty map; nothing: by its size
    };
    // What the disks of one job share.
    struct Shared {
        ConnectionShares& connections;
        Pace& pace;
        JobRecord& record;
        const Cancellation& cancellation;
    };
    // `index`: of the disk in its job. `status` and what is shared outlive it.
    DiskMirror(Options options, std::size_t index, DiskStatus& status, const Shared& shared);

    // Looks at both sides; nothing has been changed when it throws.
    void open();
    // Once that is done: starts a tracker in which everything is dirty.
    void begin();
    // To be recorded then, before anything is copied.
    [[nodiscard]] const DiskRecord& record() const { return record_.value(); }
    // Whether this job has handed the disk over already, as another process has recorded it.
    [[nodiscard]] bool has_moved(const DiskRecord& record);
    // Goes on with what another process has recorded.
    void resume(const DiskRecord& record);
    // The same within this process, once connections are lost.
    void connect_again();
    // Ends all connections: whoever waits for the target may open it.
    void disconnect();
    // Tells a target that waits for that, to which nothing is connected any more, that the disk is
    // its own now. Not cancelled.
    void commit();
    // Nobody will go on with it: the tracker is removed.
    void forget() noexcept;

    // As long as writers wait, nothing is done for the case that the round is broken off.
    enum class Haste { none, writers_wait };
    struct Round {
        std::uint64_t dirty_bytes = 0;   // that the freeze found
        std::uint64_t copied_bytes = 0;  // these, and what was written before the copy came by
        double dirty_bytes_per_s = 0;    // since the freeze before
        Clock::duration copying{};
        Clock::duration flushing{};
    };
    // What is waited for.
    enum class Step { copying, flushing };
    // `on_copied` is called when nothing but the flush is left. Throws JobError when `stop` is
    // requested meanwhile.
    Round catch_up(Haste haste, const std::stop_token& stop,
                   const std::function<void()>& on_copied);
    // Nothing was written since the last round.
    [[nodiscard]] bool is_clean();
    // Nothing is left to verify but what rounds to come copy.
    [[nodiscard]] bool is_checked() const noexcept {
        return !verification_ || verification_->unchecked_bytes() == 0;
    }
    // Until the first round is through, the target is not a copy of anything.
    [[nodiscard]] bool first_round() const noexcept { return first_round_.load(); }

    // How often some of what was copied has become durable at the target; any thread may ask.
    [[nodiscard]] std::uint64_t durable_steps() const noexcept { return durable_steps_.load(); }

    struct Look {
        std::uint64_t dirty_bytes = 0;
        std::optional<double> dirty_bytes_per_s;  // since the last freeze; nothing: not known
        ClientTimes clients;
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
    void open_sides(Opening opening);
    void start_tracker(bool compare);
    void connect();
    void take_up();
    void acknowledge_progress(std::uint64_t generation);
    void note_durable() noexcept;
    void while_it_stands(const SourceServer::Frozen& frozen, const std::function<void()>& go_by_it);
    void copy_frozen(const SourceServer::Frozen& frozen, Haste haste, Round& round,
                     const std::function<void()>& tick);
    void verify(std::uint64_t dirty_bytes, Haste haste, const std::function<void()>& tick);

    const Options options_;
    const std::size_t index_;
    DiskStatus& status_;
    const Shared shared_;
    SourceServer server_;
    SourceServer round_server_;  // the same, of the thread that is in catch_up()
    std::optional<DiskRecord> record_;

    // The connections, in the order in which they are made.
    std::unique_ptr<Side> source_;
    std::unique_ptr<Side> target_;
    std::unique_ptr<Scout> dirtiness_;
    std::unique_ptr<Scout> allocation_;
    std::optional<Clock::time_point> looked_for_holes_;  // of all the disk
    // What the target said before the first round over these connections; then nothing is known,
    // since old data may lie under a new hole.
    std::unique_ptr<TargetZeroes> target_zeroes_;
    std::unique_ptr<Engine> engine_;

    // When what was copied is to be verified; anew with new connections.
    std::unique_ptr<Verification> verification_;

    std::atomic<bool> first_round_{true};
    std::uint64_t acknowledged_to_ = 0;  // in this generation
    std::atomic<Clock::time_point> last_freeze_{};

    std::atomic<std::uint64_t> durable_steps_{0};
    std::uint64_t done_when_durable_ = 0;  // DiskStatus::done_bytes(), the last time in this round
};

}  // namespace nbdm
