// SPDX-License-Identifier: Apache-2.0
#pragma once

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
#include "client/copy_rounds.h"
#include "client/disk_status.h"
#include "client/engine.h"
#include "client/job_record.h"
#include "client/pace.h"
#include "client/session.h"
#include "client/source_server.h"

namespace nbdm {

// One disk of a mirror job: its tracker, its connections, and the rounds over them.
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
        Session& session;
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
    // Whether a job of this name has handed the disk over already, as another process has recorded
    // it.
    [[nodiscard]] bool has_moved(const DiskRecord& record);
    // Once that is known: where to, and whether that is another place than the target.
    [[nodiscard]] const std::string& moved_to() const noexcept { return moved_to_; }
    [[nodiscard]] bool moved_elsewhere() const noexcept {
        return !moved_to_.empty() && moved_to_ != target().text;
    }
    // Goes on with what another process has recorded.
    void resume(const DiskRecord& record);
    // The same within this process, once connections are lost.
    void connect_again();
    // Ends all connections: whoever waits for the target may open it.
    void disconnect();
    // Whether the source, which had been handed over, is in service again; nothing when its server
    // does not answer soon.
    [[nodiscard]] std::optional<bool> was_taken_back();
    struct ToCommit {
        bool waits = false;                  // the target has to be told
        std::unique_ptr<NbdHandle> entered;  // as long as it stands no other mirror enters
    };
    // Throws JobError when the target is not the copy any more, ConnectionLost when nobody can say.
    [[nodiscard]] ToCommit look_before_commit();
    // Then: tells it that the disk is its own now, which ends its connections. Not cancelled.
    void commit();
    // Nobody will go on with it: the tracker is removed.
    void forget() noexcept;

    using Haste = CopyRounds::Haste;
    using Round = CopyRounds::Round;
    using Step = CopyRounds::Step;
    // As CopyRounds::run().
    Round catch_up(Haste haste, const std::stop_token& stop,
                   const std::function<void(Step)>& on_step);
    // As CopyRounds'; not while disconnected.
    [[nodiscard]] bool is_checked() const noexcept { return rounds_->is_checked(); }

    // Any thread may ask.
    [[nodiscard]] const CopyRounds::Progress& progress() const noexcept { return progress_; }

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
    [[nodiscard]] SourceServer::ExportStatus check_source();
    void open_sides(Opening opening);
    void start_tracker(bool compare);
    void connect();
    void take_up();
    void take_up_tracker();
    void check_content(const std::optional<TargetContent>& content, bool incoming);
    [[noreturn]] void refuse_to_commit(const std::string& reason, const std::string& or_else) const;

    const Options options_;
    const std::size_t index_;
    DiskStatus& status_;
    const Shared shared_;
    SourceServer server_;
    SourceServer round_server_;  // the same, of the thread that is in catch_up()
    std::optional<DiskRecord> record_;
    std::string moved_to_;

    // The connections, in the order in which they are made.
    std::unique_ptr<Side> source_;
    std::unique_ptr<Side> target_;
    std::unique_ptr<Scout> dirtiness_;
    std::unique_ptr<Scout> allocation_;
    std::unique_ptr<TargetZeroes> target_zeroes_;  // for the rounds
    std::unique_ptr<Engine> engine_;
    std::unique_ptr<CopyRounds> rounds_;

    CopyRounds::Progress progress_;
    LateWrites late_writes_;
};

}  // namespace nbdm
