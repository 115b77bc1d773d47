// SPDX-License-Identifier: Apache-2.0
#include "client/disk_mirror.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "client/dirty_scout.h"
#include "client/refreezing_scout.h"
#include "client/session.h"
#include "control/log.h"

namespace nbdm {

namespace {

// Disks whose round takes longer have the connections of those whose round is over, and lose them
// again: less is not worth the connecting.
constexpr std::chrono::seconds kLongRound{1};

// How old the holes of what is not dirty may be where a job is watched.
constexpr std::chrono::seconds kHolesAreShown{30};

// As fine as guests write, as long as a map of the disk has no more than this: what a write dirties
// is copied in whole blocks.
std::uint32_t default_granularity(std::uint64_t size_bytes) {
    constexpr std::uint64_t kMaxMapBytes = 16 << 20;
    constexpr std::uint64_t kFinest = 16 << 10;
    constexpr std::uint64_t kBitsPerByte = 8;
    return static_cast<std::uint32_t>(
        std::clamp(std::bit_ceil(size_bytes / (kMaxMapBytes * kBitsPerByte) + 1), kFinest,
                   std::uint64_t{64} << 20));
}

}  // namespace

DiskMirror::DiskMirror(Options options, std::size_t index, DiskStatus& status, const Shared& shared)
    : options_(std::move(options)),
      index_(index),
      status_(status),
      shared_(shared),
      server_(options_.copy.source, shared.cancellation),
      round_server_(options_.copy.source, shared.cancellation) {}

void DiskMirror::open() {
    open_sides(Opening::first);
}

void DiskMirror::begin() {
    start_tracker(/*compare=*/false);
    connect();
}

bool DiskMirror::has_moved(const DiskRecord& record) {
    record_ = record;
    const SourceServer::About about = server_.about();
    return about.state == "retired" && about.moved_by == options_.job;
}

void DiskMirror::resume(const DiskRecord& record) {
    record_ = record;
    take_up();
    status_.map.start(record.size_bytes);
}

void DiskMirror::connect_again() {
    disconnect();
    take_up();
}

void DiskMirror::take_up() {
    open_sides(Opening::again);
    const std::uint64_t size = source_->traits().size_bytes;
    if (size != record_->size_bytes) {
        throw JobError(source().text + " has " + std::to_string(size) + " bytes by now, not " +
                       std::to_string(record_->size_bytes) + ": the mirror has to be begun anew");
    }
    if (record_->incoming && !target_->traits().incoming) {
        throw JobError("target " + target().text +
                       " was incoming and is not any more: others may have written to it. Serve it "
                       "as incoming again and resume, or begin anew if it was written to");
    }
    if (!server_.take_up_tracker(record_->tracker)) {
        log_warning("the tracker of " + source().text +
                    " is gone, and nobody knows what was written since: source and target are "
                    "compared, and what differs is copied");
        start_tracker(/*compare=*/true);
        shared_.record.replace(index_, *record_);
    } else if (record_->incoming != target_->traits().incoming) {
        record_->incoming = target_->traits().incoming;
        shared_.record.replace(index_, *record_);
    }
    connect();
}

SourceServer::About DiskMirror::check_source() {
    SourceServer::About about = server_.about();
    const std::string& name = source().export_name;
    if (about.state == "retired") {
        throw JobError("export '" + name + "' has moved away already" +
                       (about.moved_at.empty()
                            ? ""
                            : ", to " + about.moved_to + ", at " + about.moved_at + " (job '" +
                                  about.moved_by + "'): guests may write there"));
    }
    if (about.read_only) {
        throw JobError("export '" + name +
                       "' is read-only: nothing can be written to it, 'copy' moves it");
    }
    if (is_same_disk(target(), about.disk.path, about.uris)) {
        throw JobError("'" + target().text + "' is the source itself");
    }
    return about;
}

void DiskMirror::open_sides(Opening opening) {
    const SourceServer::About about = check_source();
    source_ =
        std::make_unique<Side>(Side::open_export(about.address, about.disk, shared_.cancellation));
    const std::uint64_t size = source_->traits().size_bytes;
    if (size == 0) {
        throw JobError("source " + source().text + " is empty: there is nothing to move");
    }
    Side::TargetOptions options{
        .create_bytes = {}, .is_zero = false, .session = session_context(options_.job)};
    if (opening == Opening::first) {
        options.is_zero = options_.copy.target_is_zero;
        if (options_.copy.create) {
            options.create_bytes = size;
        }
    }
    target_ = std::make_unique<Side>(Side::open_target(target(), options, shared_.cancellation));
    check_sides(*source_, *target_);
    // A host has many names; a client of the source server is one.
    const std::string address = target_->local_address();
    if (!address.empty() && server_.has_client(address)) {
        throw JobError("'" + target().text + "' is the source itself");
    }
    if (opening == Opening::first) {
        warn_of_full_target(*source_, *target_);
    }
    if (!target_->traits().can_flush) {
        throw JobError("target " + target().text +
                       " cannot flush: a disk cannot be handed over to it durably");
    }
    target_zeroes_.reset(new TargetZeroes(known_zeroes(*target_, shared_.cancellation)));
    status_.set_size(size);
    status_.forget_to_do();
}

void DiskMirror::start_tracker(bool compare) {
    // Blocks that are dirty begin and end where the target can be written.
    const auto granularity = std::max(
        options_.granularity_bytes.value_or(default_granularity(source_->traits().size_bytes)),
        static_cast<std::uint32_t>(std::bit_ceil(target_->traits().alignment)));
    record_ = DiskRecord{.source = source().text,
                         .target = target().text,
                         .size_bytes = source_->traits().size_bytes,
                         .tracker = server_.start_tracker(options_.job, granularity),
                         .compare = compare,
                         .incoming = target_->traits().incoming};
    first_round_ = true;
    status_.map.start(record_->size_bytes);
}

void DiskMirror::connect() {
    dirtiness_ = source_->open_scout(record_->tracker.name, shared_.cancellation);
    allocation_ = source_->open_scout("", shared_.cancellation);
    looked_for_holes_.reset();
    server_.check_stands(record_->tracker);
    // Only since the tracker's map is selected is the disk sure to stay what it is for as long as
    // this connection stands; it was opened before.
    const SourceServer::About about = server_.about();
    if (source_->reads_another(about.disk) || about.size_bytes != source_->traits().size_bytes) {
        throw ConnectionLost("the server of " + source().text +
                             " serves another disk by now, or of another size");
    }
    EngineOptions options = options_.copy.engine;
    options.connections = shared_.connections.among_all(index_);
    engine_ = std::make_unique<Engine>(*source_, *target_, options, status_, shared_.pace,
                                       shared_.cancellation);
    last_freeze_ = Clock::now();
    if (options_.copy.verify) {
        verification_ = std::make_unique<Verification>(record_->size_bytes);
    }
}

void DiskMirror::disconnect() {
    verification_.reset();
    engine_.reset();
    target_zeroes_.reset();
    allocation_.reset();
    dirtiness_.reset();
    target_.reset();
    source_.reset();
}

void DiskMirror::commit() {
    if (record_->incoming) {
        const Cancellation never;
        const std::string commit = commit_context(options_.job);
        const NbdHandle told(target().path_or_uri, {commit}, never);
        if (nbd_can_meta_context(told.get(), commit.c_str()) != 1) {
            log_warning("target " + target().text +
                        " was not incoming any more when it was told: others may have written to "
                        "it before");
        }
    }
}

void DiskMirror::forget() noexcept {
    if (record_) {
        server_.drop_tracker(record_->tracker);
        record_.reset();
    }
}

DiskMirror::Round DiskMirror::catch_up(Haste haste, const std::stop_token& stop,
                                       const std::function<void()>& on_copied) {
    const ConnectionShares::Copying copying(shared_.connections, index_);
    const Clock::time_point asked = Clock::now();
    const SourceServer::Frozen frozen = round_server_.freeze(record_->tracker);
    const Clock::time_point begin = Clock::now();
    const std::chrono::duration<double> since = begin - last_freeze_.exchange(begin);
    Round round{.dirty_bytes = frozen.dirty_bytes,
                .copied_bytes = frozen.dirty_bytes,
                .dirty_bytes_per_s = static_cast<double>(frozen.dirty_bytes) / since.count()};
    if (!first_round_) {
        status_.set_dirty_rate(round.dirty_bytes_per_s);
        status_.set_dirty(frozen.dirty_bytes);
    }
    status_.add_to_do(frozen.dirty_bytes);
    acknowledged_to_ = 0;
    done_when_durable_ = status_.done_bytes();
    engine_->use_connections(shared_.connections.among_all(index_));
    const auto tick = [&] {
        if (stop.stop_requested()) {
            throw JobError("the copying of " + source().text + " was broken off");
        }
        // Of a source whose data is read from its disk no read tells that its server is gone.
        dirtiness_->check_connected();
        if (Clock::now() - begin >= kLongRound) {
            engine_->use_connections(shared_.connections.among_copying(index_));
        }
    };
    while_it_stands(frozen, [&] {
        if (verification_) {
            verification_->explain(*dirtiness_, asked);
        }
        if (frozen.dirty_bytes > 0) {
            copy_frozen(frozen, haste, round, tick);
        }
    });
    // What it says was before the copy; and it has a connection.
    target_zeroes_.reset();
    round.copying = Clock::now() - begin;
    on_copied();
    // Also when nothing was copied: a disk is not handed over to a target that has gone meanwhile.
    engine_->flush(tick);
    round.flushing = Clock::now() - begin - round.copying;
    note_durable();
    if (verification_) {
        const bool only_this_round = verification_->unchecked_bytes() == 0;
        while_it_stands(frozen, [&] { verify(round.copied_bytes, haste, tick); });
        // Or what else is checked would be expected of later rounds.
        if (only_this_round) {
            round.copying = Clock::now() - begin - round.flushing;
        }
    }
    // Only now: what was acknowledged is never looked at again.
    round_server_.acknowledge(record_->tracker, frozen.generation);
    first_round_ = false;
    status_.map.all_moved();
    if (std::exchange(record_->compare, false)) {
        shared_.record.replace(index_, *record_);
    }
    status_.set_dirty(0);
    return round;
}

// Of a tracker that is gone the server cannot say what is dirty; asked like this, which changes
// nothing, it says why.
void DiskMirror::while_it_stands(const SourceServer::Frozen& frozen,
                                 const std::function<void()>& go_by_it) {
    try {
        go_by_it();
    } catch (const ConnectionLost&) {
        throw;
    } catch (const JobError&) {
        round_server_.acknowledge_up_to(record_->tracker, frozen.generation, 0);
        throw;
    }
}

void DiskMirror::copy_frozen(const SourceServer::Frozen& frozen, Haste haste, Round& round,
                             const std::function<void()>& tick) {
    TargetZeroes unknown(false);
    TargetZeroes& zeroes = target_zeroes_ ? *target_zeroes_ : unknown;
    const Engine::Sweep sweep{
        .only_dirty = true, .compare = record_->compare, .checkpoints = haste == Haste::none};
    if (haste != Haste::none) {
        DirtyScout scout(*dirtiness_, *allocation_, DirtyScout::Holes::where_dirty);
        engine_->copy(sweep, scout, zeroes, tick);
        return;
    }
    const Clock::time_point now = Clock::now();
    const bool show_holes = !looked_for_holes_ || now - *looked_for_holes_ >= kHolesAreShown;
    DirtyScout found(*dirtiness_, *allocation_,
                     show_holes ? DirtyScout::Holes::everywhere : DirtyScout::Holes::where_dirty);
    RefreezingScout scout(found, [&](Range window) {
        const std::uint64_t more =
            round_server_.refreeze(record_->tracker, frozen.generation, window);
        status_.add_to_do(more);
        round.copied_bytes += more;
    });
    engine_->copy(sweep, scout, zeroes, [&] {
        acknowledge_progress(frozen.generation);
        tick();
    });
    if (show_holes) {
        looked_for_holes_ = now;
    }
}

void DiskMirror::verify(std::uint64_t dirty_bytes, Haste haste, const std::function<void()>& tick) {
    const std::uint64_t unchecked_bytes = verification_->unchecked_bytes();
    status_.add_to_do(std::min(dirty_bytes + unchecked_bytes, record_->size_bytes));
    // Holes are not read where there are some at both sides, which matters when much is looked at.
    TargetZeroes zeroes = unchecked_bytes > 0
                              ? TargetZeroes(target_->open_scout("", shared_.cancellation),
                                             target_->traits().size_bytes)
                              : TargetZeroes(false);
    using Writers = Verification::Writers;
    const Writers writers = haste == Haste::writers_wait ? Writers::wait : Writers::write;
    verification_->check(*engine_, {*dirtiness_, *allocation_}, zeroes, writers, tick);
    if (writers == Writers::wait && verification_->unchecked_bytes() > 0) {
        throw JobError("more differs than can be kept in mind");
    }
}

// What is acknowledged is not dirty any more, and so would not be checked.
void DiskMirror::acknowledge_progress(std::uint64_t generation) {
    if (verification_ && !verification_->checks_everything()) {
        return;
    }
    const std::uint64_t durable_to = engine_->durable_to();
    if (durable_to > acknowledged_to_) {
        round_server_.acknowledge_up_to(record_->tracker, generation, durable_to);
        acknowledged_to_ = durable_to;
        note_durable();
    }
}

// A flush that found nothing to make durable is no step.
void DiskMirror::note_durable() noexcept {
    const std::uint64_t done = status_.done_bytes();
    durable_steps_ += done != std::exchange(done_when_durable_, done) ? 1 : 0;
}

bool DiskMirror::is_clean() {
    const SourceServer::Frozen last = server_.freeze(record_->tracker);
    if (last.dirty_bytes == 0) {
        server_.acknowledge(record_->tracker, last.generation);
    }
    return last.dirty_bytes == 0;
}

std::optional<DiskMirror::Look> DiskMirror::look() {
    try {
        const SourceServer::About about = server_.about();
        if (about.state == "retired") {
            throw JobError(source().text + " has moved away meanwhile, by another job's hand-over");
        }
        const auto own = std::find_if(
            about.trackers.begin(), about.trackers.end(),
            [&](const auto& each) { return each.incarnation == record_->tracker.incarnation; });
        if (own == about.trackers.end()) {
            throw TrackerGone("the tracker of " + source().text + " was removed");
        }
        Look look{
            .dirty_bytes = first_round_ ? own->dirty_bytes : own->dirty_bytes + own->frozen_bytes,
            .dirty_bytes_per_s = {},
            .clients = about.clients};
        status_.set_dirty(look.dirty_bytes);
        // A rate of less time says little.
        constexpr std::chrono::duration<double> kMinTime{0.2};
        const std::chrono::duration<double> since = Clock::now() - last_freeze_.load();
        if (since >= kMinTime) {
            look.dirty_bytes_per_s = static_cast<double>(own->dirty_bytes) / since.count();
        }
        return look;
    } catch (const NoAnswer&) {
        // What is shown is old for a while; if the server is gone, the copying meets that.
        return std::nullopt;
    }
}

}  // namespace nbdm
