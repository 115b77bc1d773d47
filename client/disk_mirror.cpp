// SPDX-License-Identifier: Apache-2.0
#include "client/disk_mirror.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "control/log.h"

namespace nbdm {

namespace {

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
    // Of a disk that has moved a cancelled job would forget what is needed to tell the target.
    const SourceServer::ExportStatus status =
        server_.status(SourceServer::kAnswerLimit, /*may_cancel=*/false);
    const bool moved = status.state == "retired" && status.moved_by == options_.job;
    moved_to_ = moved && !status.moved_to.empty() ? status.moved_to : target().text;
    return moved;
}

void DiskMirror::resume(const DiskRecord& record) {
    record_ = record;
    take_up();
    status_.map.start(record.size_bytes);
}

void DiskMirror::connect_again() {
    disconnect();
    take_up();
    if (!late_writes_.none()) {
        log_warning("target " + target().text +
                    " may still do what was asked of it before its connection was lost: it is not "
                    "handed over for " +
                    std::to_string(LateWrites::kGrace.count()) + " s, and compared there before");
    }
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
    take_up_tracker();
    connect();
}

// What is not dirty there is at the target, unless that is not what this job has written.
void DiskMirror::take_up_tracker() {
    const bool same_target = TargetContent::is_still(record_->content, target_->content());
    const bool tracked = server_.take_up_tracker(record_->tracker);
    if (!tracked || !same_target) {
        log_warning((tracked ? "target " + target().text +
                                   " is another disk by now, or another mirror has filled it"
                             : "the tracker of " + source().text +
                                   " is gone, and nobody knows what was written since") +
                    ": source and target are compared, and what differs is copied");
        start_tracker(/*compare=*/true);
        shared_.record.replace(index_, *record_);
    } else if (record_->incoming != target_->traits().incoming ||
               (!record_->content && target_->content())) {
        record_->incoming = target_->traits().incoming;
        record_->content = target_->content();
        shared_.record.replace(index_, *record_);
    }
}

SourceServer::ExportStatus DiskMirror::check_source() {
    SourceServer::ExportStatus status = server_.status();
    const std::string& name = source().export_name;
    if (status.state == "retired") {
        throw JobError("export '" + name + "' has moved away already" +
                       (status.moved_at.empty()
                            ? ""
                            : ", to " + status.moved_to + ", at " + status.moved_at + " (job '" +
                                  status.moved_by + "'): guests may write there"));
    }
    if (status.read_only) {
        throw JobError("export '" + name +
                       "' is read-only: nothing can be written to it, 'copy' moves it");
    }
    if (is_same_disk(target(), status.disk.path, status.uris)) {
        throw JobError("'" + target().text + "' is the source itself");
    }
    return status;
}

void DiskMirror::open_sides(Opening opening) {
    const SourceServer::ExportStatus status = check_source();
    source_ = std::make_unique<Side>(
        Side::open_export(status.address, status.disk, shared_.cancellation));
    const std::uint64_t size = source_->traits().size_bytes;
    if (size == 0) {
        throw JobError("source " + source().text + " is empty: there is nothing to move");
    }
    Side::TargetOptions options{
        .create_bytes = {}, .is_zero = false, .session = shared_.session.next_context()};
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
                         .incoming = target_->traits().incoming,
                         .content = target_->content()};
    progress_.first_round = true;
    status_.map.start(record_->size_bytes);
}

void DiskMirror::connect() {
    dirtiness_ = source_->open_scout(record_->tracker.name, shared_.cancellation);
    allocation_ = source_->open_scout("", shared_.cancellation);
    server_.check_stands(record_->tracker);
    // Only since the tracker's map is selected is the disk sure to stay what it is for as long as
    // this connection stands; it was opened before.
    const SourceServer::ExportStatus status = server_.status();
    if (source_->reads_another(status.disk) || status.size_bytes != source_->traits().size_bytes) {
        throw ConnectionLost("the server of " + source().text +
                             " serves another disk by now, or of another size");
    }
    EngineOptions options = options_.copy.engine;
    options.connections = shared_.connections.among_all(index_);
    engine_ = std::make_unique<Engine>(*source_, *target_, options, status_, shared_.pace,
                                       shared_.cancellation);
    rounds_ = std::make_unique<CopyRounds>(CopyRounds::Parts{.index = index_,
                                                             .server = round_server_,
                                                             .tracker = record_->tracker,
                                                             .source = *source_,
                                                             .target = *target_,
                                                             .dirtiness = *dirtiness_,
                                                             .allocation = *allocation_,
                                                             .engine = *engine_,
                                                             .connections = shared_.connections,
                                                             .status = status_,
                                                             .progress = progress_,
                                                             .late_writes = late_writes_,
                                                             .cancellation = shared_.cancellation},
                                           std::move(target_zeroes_), options_.copy.verify);
}

void DiskMirror::disconnect() {
    if (engine_ && !target_->traits().fences) {
        late_writes_.lost(engine_->unanswered(), Clock::now());
    }
    rounds_.reset();
    engine_.reset();
    target_zeroes_.reset();
    allocation_.reset();
    dirtiness_.reset();
    target_.reset();
    source_.reset();
}

std::optional<bool> DiskMirror::was_taken_back() {
    constexpr std::chrono::seconds kSoon{2};
    if (!record_->incoming) {
        return false;
    }
    try {
        const SourceServer::ExportStatus status = server_.status(kSoon, /*may_cancel=*/false);
        return status.state != "retired" || status.moved_by != options_.job;
    } catch (const NoAnswer&) {
        return std::nullopt;
    } catch (const JobError&) {
        return false;  // it does not serve the disk
    }
}

DiskMirror::ToCommit DiskMirror::look_before_commit() {
    ToCommit to_commit;
    if (!record_->incoming) {
        return to_commit;
    }
    if (record_->overwritten) {
        refuse_to_commit("another mirror has filled it", "");
    }
    const Cancellation never;
    const std::vector<std::string> contexts = {shared_.session.next_context(), kIncomingContext,
                                               TargetContent::kDiskContext,
                                               TargetContent::kFillersContext};
    try {
        to_commit.entered = std::make_unique<NbdHandle>(target().path_or_uri, contexts, never);
    } catch (const ConnectionLost&) {
        // The disk may have landed, of which the answer was lost: then any commit of this session
        // is answered, and otherwise none of an epoch that has passed.
        const std::string past = shared_.session.past_commit_context();
        const NbdHandle landed(target().path_or_uri, {past}, never);
        if (nbd_can_meta_context(landed.get(), past.c_str()) != 1) {
            throw;
        }
        return to_commit;
    }
    const auto content =
        TargetContent::in(ask_numbers(*to_commit.entered, {TargetContent::kDiskContext}, never));
    check_content(content, to_commit.entered->traits().incoming);
    to_commit.waits = true;
    return to_commit;
}

// A disk that has landed otherwise may have been filled by others since.
void DiskMirror::check_content(const std::optional<TargetContent>& content, bool incoming) {
    if (record_->content && (!content || content->disk != record_->content->disk)) {
        refuse_to_commit("it is another disk by now",
                         "serve the copy there and resume the job, or ");
    }
    if (incoming && !TargetContent::is_still(record_->content, content)) {
        // Its server may be started again, and not know that any more.
        record_->overwritten = true;
        try {
            shared_.record.replace(index_, *record_);
        } catch (const std::exception& error) {
            log_warning(error.what());
            shared_.record.remove();  // nobody is to go on without knowing that
        }
        refuse_to_commit("another mirror has filled it", "");
    }
}

void DiskMirror::refuse_to_commit(const std::string& reason, const std::string& or_else) const {
    throw JobError("target " + target().text + " is not the copy: " + reason +
                   ". The source has handed over, so that guests may write nowhere: " + or_else +
                   "take " + source().text + " back with --take-ownership");
}

void DiskMirror::commit() {
    const Cancellation never;
    const std::string commit = shared_.session.next_commit_context();
    const NbdHandle told(target().path_or_uri, {commit}, never);
    if (nbd_can_meta_context(told.get(), commit.c_str()) != 1) {
        log_warning("target " + target().text +
                    " was not incoming any more when it was told: others may have written to it "
                    "before");
    }
}

void DiskMirror::forget() noexcept {
    if (record_) {
        server_.drop_tracker(record_->tracker);
        record_.reset();
    }
}

DiskMirror::Round DiskMirror::catch_up(Haste haste, const std::stop_token& stop,
                                       const std::function<void(Step)>& on_step) {
    const Round round = rounds_->run(haste, record_->compare, stop, on_step);
    if (std::exchange(record_->compare, false)) {
        shared_.record.replace(index_, *record_);
    }
    return round;
}

std::optional<DiskMirror::Look> DiskMirror::look() {
    const Clock::time_point freeze = progress_.last_freeze;
    try {
        const SourceServer::ExportStatus status = server_.status();
        if (status.state == "retired") {
            throw JobError(source().text + " has moved away meanwhile, by another job's hand-over");
        }
        const auto own = std::find_if(
            status.trackers.begin(), status.trackers.end(),
            [&](const auto& each) { return each.incarnation == record_->tracker.incarnation; });
        if (own == status.trackers.end()) {
            throw TrackerGone("the tracker of " + source().text + " was removed");
        }
        Look look{
            .dirty_bytes = progress_.first_round ? own->dirty_bytes : own->unacknowledged_bytes,
            .dirty_bytes_per_s = {},
            .clients = status.clients};
        status_.set_dirty(look.dirty_bytes);
        // A rate of less time says little, and so does one of few blocks: those that the last
        // freeze has left may have been written since as often as their share was, or not.
        constexpr std::chrono::duration<double> kMinTime{0.2};
        constexpr double kMaxLeft = 0.8;
        const std::chrono::duration<double> since = Clock::now() - freeze;
        const std::uint64_t left_bytes = progress_.left_bytes;
        const double left_share = progress_.left_share;
        if (since >= kMinTime && progress_.last_freeze.load() == freeze &&
            own->dirty_bytes >= left_bytes && left_share <= kMaxLeft) {
            look.dirty_bytes_per_s = static_cast<double>(own->dirty_bytes - left_bytes) /
                                     since.count() / (1 - left_share);
        }
        return look;
    } catch (const NoAnswer&) {
        // What is shown is old for a while; if the server is gone, the copying meets that.
        return std::nullopt;
    }
}

}  // namespace nbdm
