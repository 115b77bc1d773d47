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
#include <vector>

#include "client/cancellation.h"
#include "client/connection_shares.h"
#include "client/disk_status.h"
#include "client/engine.h"
#include "client/late_writes.h"
#include "client/source_server.h"
#include "client/verification.h"

namespace nbdm {

// Rounds of freeze, copy, flush, acknowledge of one disk, over connections that stand. What is
// still to be copied is known by the tracker alone, but for what may land late, so that any round
// can be broken off, and the next one, over other connections or of another process, does what was
// not durable by then.
//
// A round that is likely to be long has two generations: blocks that were rewritten since the last
// round are left for the second, so that the less is dirty when it ends.
//
// Threads: one at a time; Progress is read by any.
// Fails:   JobError, ConnectionLost when other connections may help, Cancelled.
class CopyRounds {
  public:
    using Clock = std::chrono::steady_clock;

    // As far as the rounds have come, over whichever connections.
    struct Progress {
        // Until it is through, the target is not a copy of anything.
        std::atomic<bool> first_round{true};
        // How often some of what was copied has become durable at the target.
        std::atomic<std::uint64_t> durable_steps{0};
        std::atomic<Clock::time_point> last_freeze{};
        // What that has left dirty, and of how much.
        std::atomic<std::uint64_t> left_bytes{0};
        std::atomic<double> left_share{0};
    };
    // All of it outlives the rounds.
    struct Parts {
        std::size_t index;  // of the disk in its job
        SourceServer& server;
        const SourceServer::Tracker& tracker;
        const Side& source;
        const Side& target;
        Scout& dirtiness;
        Scout& allocation;
        Engine& engine;
        ConnectionShares& connections;
        DiskStatus& status;
        Progress& progress;
        LateWrites& late_writes;
        const Cancellation& cancellation;
    };
    // `zeroes`: what the target says before anything was written over these connections; then
    // nothing is known, since old data may lie under a new hole.
    CopyRounds(const Parts& parts, std::unique_ptr<TargetZeroes> zeroes, bool verify);

    // As long as writers wait, nothing is done for the case that the round is broken off.
    enum class Haste { none, writers_wait };
    struct Round {
        std::uint64_t dirty_bytes = 0;   // that the freeze found
        std::uint64_t copied_bytes = 0;  // these, and what was written before the copy came by
        std::uint64_t left_bytes = 0;    // that had become dirty when all of that was durable
        // Since the freeze before; nothing when that was of other connections.
        std::optional<double> dirty_bytes_per_s;
        Clock::duration copying{};
        Clock::duration flushing{};  // the last time
    };
    // What is waited for.
    enum class Step { copying, flushing };
    // `compare`: what is dirty may be at the target already. `on_step` is called at each change; it
    // begins with copying. Throws JobError when `stop` is requested meanwhile.
    Round run(Haste haste, bool compare, const std::stop_token& stop,
              const std::function<void(Step)>& on_step);

    // Nothing is left to compare but what rounds to come copy.
    [[nodiscard]] bool is_checked() const noexcept {
        return parts_.late_writes.none() &&
               (!verification_ || verification_->unchecked_bytes() == 0);
    }

  private:
    struct Work {
        Haste haste;
        bool compare;
        std::function<void()> tick;
        std::function<void(Step)> on_step;
    };
    enum class Part { all, settled, rest };  // of what is dirty when the round begins
    void check_connections();
    void copy_generation(Part part, const Work& work, Round& round);
    void tell_dirty(const SourceServer::Frozen& frozen, Clock::duration since, Round& round);
    void while_it_stands(std::uint64_t generation, const std::function<void()>& go_by_it);
    [[nodiscard]] std::uint64_t copy(std::uint64_t generation, const Work& work);
    [[nodiscard]] std::vector<Range> undo_late_writes(const Work& work);
    void verify(std::uint64_t copied_bytes, const Work& work);
    void acknowledge_progress(std::uint64_t generation);
    void note_durable() noexcept;

    const Parts parts_;
    std::unique_ptr<TargetZeroes> target_zeroes_;  // null once they are not known any more
    // When what was copied is to be verified.
    std::unique_ptr<Verification> verification_;
    std::optional<Clock::time_point> looked_for_holes_;  // of all the disk
    bool first_here_ = true;                             // the round, over these connections
    bool last_was_long_ = false;  // the round before, unless that was the job's first

    // Of the generation.
    std::uint64_t acknowledged_to_ = 0;
    std::uint64_t done_when_durable_ = 0;  // DiskStatus::done_bytes(), the last time
};

}  // namespace nbdm
