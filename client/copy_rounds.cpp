// SPDX-License-Identifier: Apache-2.0
#include "client/copy_rounds.h"

#include <algorithm>
#include <utility>

#include "client/dirty_scout.h"
#include "client/refreezing_scout.h"

namespace nbdm {

namespace {

// A round that takes longer has the connections of disks whose round is over, and the next one has
// two generations: less is not worth the connecting, or a second flush.
constexpr std::chrono::seconds kLongRound{1};

// How old the holes of what is not dirty may be where a job is watched.
constexpr std::chrono::seconds kHolesAreShown{30};

}  // namespace

CopyRounds::CopyRounds(const Parts& parts, std::unique_ptr<TargetZeroes> zeroes, bool verify)
    : parts_(parts),
      target_zeroes_(std::move(zeroes)),
      verification_(verify ? std::make_unique<Verification>(parts.source.traits().size_bytes)
                           : nullptr) {
    parts_.progress.last_freeze = Clock::time_point::max();  // none yet
    parts_.progress.left_bytes = 0;
    parts_.progress.left_share = 0;
}

CopyRounds::Round CopyRounds::run(Haste haste, bool compare, const std::stop_token& stop,
                                  const std::function<void(Step)>& on_step) {
    const ConnectionShares::Copying copying(parts_.connections, parts_.index);
    const bool first = parts_.progress.first_round;
    const Clock::time_point begin = Clock::now();
    Engine& engine = parts_.engine;
    // The round that lost it may have been given up for another reason, or none have needed it, and
    // this one might do without that connection: what was sent over it would land after the newer
    // copy. With writers held all are needed, and it is too late.
    check_connections();
    parts_.dirtiness.check_connected();
    engine.use_connections(parts_.connections.among_all(parts_.index));
    const auto tick = [&] {
        if (stop.stop_requested()) {
            throw JobError("the copying of " + parts_.source.name() + " was broken off");
        }
        // Or others, which were replaced since, would go on with a target that is another mirror's
        // by now.
        check_connections();
        // Of a source whose data is read from its disk no read tells that its server is gone.
        parts_.dirtiness.check_connected();
        if (Clock::now() - begin >= kLongRound) {
            engine.use_connections(parts_.connections.among_copying(parts_.index));
        }
    };
    const Work work{.haste = haste, .compare = compare, .tick = tick, .on_step = on_step};
    Round round;
    const bool in_two = haste == Haste::none && last_was_long_;
    if (in_two) {
        copy_generation(Part::settled, work, round);
        on_step(Step::copying);
    }
    copy_generation(in_two ? Part::rest : Part::all, work, round);
    parts_.progress.first_round = false;
    first_here_ = false;
    last_was_long_ = !first && Clock::now() - begin >= kLongRound;
    parts_.status.map.all_moved();
    parts_.status.set_dirty(0);
    return round;
}

void CopyRounds::check_connections() {
    if (const auto side = parts_.engine.lost_connection()) {
        throw ConnectionLost("a connection to " + *side + " was lost");
    }
}

void CopyRounds::copy_generation(Part part, const Work& work, Round& round) {
    const bool leaves = part == Part::settled;
    const Clock::time_point asked = Clock::now();
    const SourceServer::Frozen frozen = parts_.server.freeze(
        parts_.tracker, leaves ? SourceServer::Leave::rewritten : SourceServer::Leave::nothing);
    const Clock::time_point begin = Clock::now();
    const Clock::duration since = begin - parts_.progress.last_freeze.exchange(begin);
    const std::uint64_t found_bytes = frozen.dirty_bytes + frozen.left_bytes;
    parts_.progress.left_bytes = frozen.left_bytes;
    parts_.progress.left_share = static_cast<double>(frozen.left_bytes) /
                                 static_cast<double>(std::max<std::uint64_t>(found_bytes, 1));
    if (part != Part::rest) {
        tell_dirty(frozen, since, round);
    }
    std::uint64_t copied_bytes = frozen.dirty_bytes;
    parts_.status.add_to_do(frozen.dirty_bytes);
    acknowledged_to_ = 0;
    done_when_durable_ = parts_.status.done_bytes();
    while_it_stands(frozen.generation, [&] {
        // The write that explains a difference may have marked what is left.
        if (verification_ && !leaves) {
            verification_->explain(parts_.dirtiness, asked);
        }
        if (frozen.dirty_bytes > 0) {
            copied_bytes += copy(frozen.generation, work);
        }
    });
    // They were asked for before the copy, and keep a connection.
    target_zeroes_.reset();
    const Clock::time_point copied = Clock::now();
    // Not with writers held: no hand-over begins before that is done.
    const std::vector<Range> undone =
        !leaves && work.haste == Haste::none ? undo_late_writes(work) : std::vector<Range>{};
    work.on_step(Step::flushing);
    const Clock::time_point flushing = Clock::now();
    // Also when nothing was copied: a disk is not handed over to a target that has gone meanwhile.
    parts_.engine.flush(work.tick);
    const Clock::time_point flushed = Clock::now();
    if (!undone.empty()) {
        if (verification_) {
            verification_->check_again(parts_.engine, undone, work.tick);
        }
        parts_.late_writes.forget();
    }
    round.copied_bytes += copied_bytes;
    round.copying += copied - begin;
    round.flushing = flushed - flushing;
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
    round.left_bytes = parts_.server.acknowledge(parts_.tracker, frozen.generation);
}

void CopyRounds::tell_dirty(const SourceServer::Frozen& frozen, Clock::duration since,
                            Round& round) {
    Progress& progress = parts_.progress;
    const double seconds = std::chrono::duration<double>(since).count();
    round.dirty_bytes = frozen.dirty_bytes + frozen.left_bytes;
    // What was dirty before these connections stood says nothing of a rate.
    if (!first_here_) {
        round.dirty_bytes_per_s = static_cast<double>(round.dirty_bytes) / seconds;
    }
    if (!progress.first_round) {
        if (round.dirty_bytes_per_s) {
            parts_.status.set_dirty_rate(*round.dirty_bytes_per_s);
        }
        parts_.status.set_dirty(round.dirty_bytes);
    }
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

// Where one has landed on newer data that is sent again. What is written there meanwhile is dirty,
// and copied by a later round. Returns where that was.
std::vector<Range> CopyRounds::undo_late_writes(const Work& work) {
    const std::vector<Range> late = parts_.late_writes.due(Clock::now());
    if (late.empty()) {
        return late;
    }
    for (const Range& range : late) {
        parts_.status.add_to_do(range.length);
    }
    KnownScout suspect(dirty_extents(late, parts_.source.traits().size_bytes));
    TargetZeroes unknown(false);
    parts_.engine.copy({.only_dirty = true, .compare = true}, suspect, unknown, work.tick);
    return late;
}

void CopyRounds::verify(std::uint64_t copied_bytes, const Work& work) {
    const std::uint64_t unchecked_bytes = verification_->unchecked_bytes();
    const std::uint64_t size_bytes = parts_.source.traits().size_bytes;
    parts_.status.add_to_do(std::min(copied_bytes + unchecked_bytes, size_bytes));
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
