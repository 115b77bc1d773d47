// SPDX-License-Identifier: Apache-2.0
#include "client/copy_rounds.h"

#include <algorithm>
#include <utility>

#include "client/dirty_scout.h"
#include "client/refreezing_scout.h"

namespace nbdm {

namespace {

using Leave = SourceServer::Leave;

// Disks whose round takes longer have the connections of those whose round is over, and lose them
// again: less is not worth the connecting.
constexpr std::chrono::seconds kLongRound{1};

// How old the holes of what is not dirty may be where a job is watched.
constexpr std::chrono::seconds kHolesAreShown{30};

}  // namespace

CopyRounds::CopyRounds(const Parts& parts, std::unique_ptr<TargetZeroes> zeroes, bool verify)
    : parts_(parts),
      target_zeroes_(std::move(zeroes)),
      verification_(verify ? std::make_unique<Verification>(parts.source.traits().size_bytes)
                           : nullptr) {
    parts_.progress.last_freeze = Clock::now();
}

CopyRounds::Round CopyRounds::run(Haste haste, bool compare, const std::stop_token& stop,
                                  const std::function<void()>& on_copied) {
    const ConnectionShares::Copying copying(parts_.connections, parts_.index);
    const bool first = parts_.progress.first_round;
    const Clock::time_point begin = Clock::now();
    Engine& engine = parts_.engine;
    engine.use_connections(parts_.connections.among_all(parts_.index));
    const auto tick = [&] {
        if (stop.stop_requested()) {
            throw JobError("the copying of " + parts_.source.name() + " was broken off");
        }
        // Of a source whose data is read from its disk no read tells that its server is gone.
        parts_.dirtiness.check_connected();
        if (Clock::now() - begin >= kLongRound) {
            engine.use_connections(parts_.connections.among_copying(parts_.index));
        }
    };
    Round round;
    const bool in_two = haste == Haste::none && last_was_long_;
    if (in_two) {
        copy_generation(Leave::rewritten, {haste, compare, false, tick, [] {}}, round);
    }
    copy_generation(Leave::nothing, {haste, compare, in_two, tick, on_copied}, round);
    parts_.progress.first_round = false;
    last_was_long_ = !first && Clock::now() - begin >= kLongRound;
    parts_.status.map.all_moved();
    parts_.status.set_dirty(0);
    return round;
}

void CopyRounds::copy_generation(SourceServer::Leave leave, const Work& work, Round& round) {
    Progress& progress = parts_.progress;
    DiskStatus& status = parts_.status;
    const Clock::time_point asked = Clock::now();
    const SourceServer::Frozen frozen = parts_.server.freeze(parts_.tracker, leave);
    const Clock::time_point begin = Clock::now();
    const std::chrono::duration<double> since = begin - progress.last_freeze.exchange(begin);
    progress.has_left = leave == Leave::rewritten;
    if (!work.is_rest) {
        round.dirty_bytes = frozen.dirty_bytes + frozen.left_bytes;
        round.dirty_bytes_per_s = static_cast<double>(round.dirty_bytes) / since.count();
        if (!progress.first_round) {
            status.set_dirty_rate(round.dirty_bytes_per_s);
            status.set_dirty(round.dirty_bytes);
        }
    }
    std::uint64_t copied_bytes = frozen.dirty_bytes;
    status.add_to_do(frozen.dirty_bytes);
    acknowledged_to_ = 0;
    done_when_durable_ = status.done_bytes();
    while_it_stands(frozen.generation, [&] {
        // A write that explains a difference may have marked what was left.
        if (verification_ && leave == Leave::nothing) {
            verification_->explain(parts_.dirtiness, asked);
        }
        if (frozen.dirty_bytes > 0) {
            copied_bytes += copy(frozen.generation, work);
        }
    });
    // What it says was before the copy; and it has a connection.
    target_zeroes_.reset();
    // Not with writers held: no hand-over begins before that is done.
    const std::vector<Range> late = work.haste == Haste::none && leave == Leave::nothing
                                        ? progress.late.settled(Clock::now())
                                        : std::vector<Range>{};
    if (!late.empty()) {
        undo(late, work);
    }
    const Clock::time_point copied = Clock::now();
    work.on_copied();
    // Also when nothing was copied: a disk is not handed over to a target that has gone meanwhile.
    parts_.engine.flush(work.tick);
    const Clock::time_point flushed = Clock::now();
    if (!late.empty()) {
        progress.late.settle();
    }
    round.copied_bytes += copied_bytes;
    round.copying += copied - begin;
    round.flushing = flushed - copied;  // the last one's
    note_durable();
    if (verification_) {
        const bool only_this_round = verification_->unchecked_bytes() == 0;
        while_it_stands(frozen.generation, [&] { verify(copied_bytes, work); });
        // Or what else is checked would be expected of later rounds.
        if (only_this_round) {
            round.copying += Clock::now() - flushed;
        }
    }
    // Only now: what was acknowledged is never looked at again.
    parts_.server.acknowledge(parts_.tracker, frozen.generation);
}

// Of a tracker that is gone the server cannot say what is dirty; asked like this, which changes
// nothing, it says why.
void CopyRounds::while_it_stands(std::uint64_t generation, const std::function<void()>& go_by_it) {
    try {
        go_by_it();
    } catch (const ConnectionLost&) {
        throw;
    } catch (const JobError&) {
        parts_.server.acknowledge_up_to(parts_.tracker, generation, 0);
        throw;
    }
}

// Returns how much has joined the generation meanwhile.
std::uint64_t CopyRounds::copy(std::uint64_t generation, const Work& work) {
    TargetZeroes unknown(false);
    TargetZeroes& zeroes = target_zeroes_ ? *target_zeroes_ : unknown;
    const Engine::Sweep sweep{
        .only_dirty = true, .compare = work.compare, .checkpoints = work.haste == Haste::none};
    if (work.haste != Haste::none) {
        DirtyScout scout(parts_.dirtiness, parts_.allocation, DirtyScout::Holes::where_dirty);
        parts_.engine.copy(sweep, scout, zeroes, work.tick);
        return 0;
    }
    const Clock::time_point now = Clock::now();
    const bool show_holes = !looked_for_holes_ || now - *looked_for_holes_ >= kHolesAreShown;
    DirtyScout found(parts_.dirtiness, parts_.allocation,
                     show_holes ? DirtyScout::Holes::everywhere : DirtyScout::Holes::where_dirty);
    std::uint64_t joined_bytes = 0;
    RefreezingScout scout(found, [&](Range window) {
        const std::uint64_t more = parts_.server.refreeze(parts_.tracker, generation, window);
        parts_.status.add_to_do(more);
        joined_bytes += more;
    });
    parts_.engine.copy(sweep, scout, zeroes, [&] {
        acknowledge_progress(generation);
        work.tick();
    });
    if (show_holes) {
        looked_for_holes_ = now;
    }
    return joined_bytes;
}

// Where a late write has landed on newer data that is sent again. What is written there meanwhile
// is dirty, and copied by a later round.
void CopyRounds::undo(const std::vector<Range>& late, const Work& work) {
    const std::vector<Extent> extents = dirty_extents(late, parts_.source.traits().size_bytes);
    for (const Extent& extent : extents) {
        parts_.status.add_to_do(extent.dirty ? extent.range.length : 0);
    }
    KnownScout suspect(extents);
    TargetZeroes unknown(false);
    parts_.engine.copy({.only_dirty = true, .compare = true}, suspect, unknown, work.tick);
}

void CopyRounds::verify(std::uint64_t dirty_bytes, const Work& work) {
    const std::uint64_t unchecked_bytes = verification_->unchecked_bytes();
    const std::uint64_t size_bytes = parts_.source.traits().size_bytes;
    parts_.status.add_to_do(std::min(dirty_bytes + unchecked_bytes, size_bytes));
    // Holes are not read where there are some at both sides, which matters when much is looked at.
    TargetZeroes zeroes = unchecked_bytes > 0
                              ? TargetZeroes(parts_.target.open_scout("", parts_.cancellation),
                                             parts_.target.traits().size_bytes)
                              : TargetZeroes(false);
    using Writers = Verification::Writers;
    const Writers writers = work.haste == Haste::writers_wait ? Writers::wait : Writers::write;
    verification_->check(parts_.engine, {parts_.dirtiness, parts_.allocation}, zeroes, writers,
                         work.tick);
    if (writers == Writers::wait && verification_->unchecked_bytes() > 0) {
        throw JobError("more differs than can be kept in mind");
    }
}

// What is acknowledged is not dirty any more, and so would not be checked.
void CopyRounds::acknowledge_progress(std::uint64_t generation) {
    if (verification_ && !verification_->checks_everything()) {
        return;
    }
    const std::uint64_t durable_to = parts_.engine.durable_to();
    if (durable_to > acknowledged_to_) {
        parts_.server.acknowledge_up_to(parts_.tracker, generation, durable_to);
        acknowledged_to_ = durable_to;
        note_durable();
    }
}

// A flush that found nothing to make durable is no step.
void CopyRounds::note_durable() noexcept {
    const std::uint64_t done = parts_.status.done_bytes();
    parts_.progress.durable_steps += done != std::exchange(done_when_durable_, done) ? 1 : 0;
}

}  // namespace nbdm
