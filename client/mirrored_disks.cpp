// SPDX-License-Identifier: Apache-2.0
#include "client/mirrored_disks.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <utility>

#include "client/in_parallel.h"
#include "client/known_jobs.h"
#include "client/lost_connections.h"
#include "control/durable_file.h"
#include "control/log.h"
#include "control/runtime_paths.h"

namespace nbdm {

MirroredDisks::MirroredDisks(const std::string& job, const std::vector<DiskMirror::Options>& disks,
                             JobStatus& status, JobLimits& limits, const Cancellation& cancellation)
    : job_(job),
      status_(status),
      limits_(limits),
      cancellation_(cancellation),
      connections_(disks.size(), limits),
      auto_connections_(disks.size(), limits),
      record_(job),
      session_(job) {
    const DiskMirror::Shared shared{.connections = connections_,
                                    .pace = limits.pace(),
                                    .record = record_,
                                    .session = session_,
                                    .cancellation = cancellation};
    for (std::size_t i = 0; i < disks.size(); ++i) {
        disks_.push_back(std::make_unique<DiskMirror>(disks[i], i, status.disk(i), shared));
    }
}

void MirroredDisks::begin() {
    const std::optional<RecordedJob> earlier = earlier_job();
    if (earlier) {
        session_ = earlier->session;  // what it has left at the targets does not keep this one out
    }
    for (const auto& disk : disks_) {
        disk->open();
    }
    // Nobody would take up the trackers of a job that does not begin.
    struct ForgetUnlessWritten {
        MirroredDisks& disks;
        ~ForgetUnlessWritten() {
            if (!disks.can_be_resumed()) {
                disks.forget_trackers();
            }
        }
    };
    const ForgetUnlessWritten forget{*this};
    if (earlier) {
        log_warning("'nbd-mirror mirror --resume --job " + job_ +
                    "' would have gone on with what an earlier mirror of that name had left; this "
                    "one begins anew");
    }
    std::vector<DiskRecord> records;
    for (const auto& disk : disks_) {
        disk->begin();
        records.push_back(disk->record());
    }
    record_.write({.session = session_, .disks = std::move(records)});
}

std::optional<RecordedJob> MirroredDisks::earlier_job() const {
    try {
        return record_.read();
    } catch (const JobError&) {
        return std::nullopt;  // damaged: nobody can go on with it
    }
}

bool MirroredDisks::resume() {
    const auto recorded = record_.read();
    if (!recorded || recorded->disks.size() != disks_.size()) {
        throw JobError("the record of job '" + job_ + "' has changed meanwhile");
    }
    session_ = recorded->session;
    // Not written: to tell a target that its disk has moved takes no room here.
    record_.take_up(*recorded);
    std::size_t moved = 0;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        const DiskMirror& disk = *disks_[i];
        moved += disks_[i]->has_moved(recorded->disks.at(i)) ? 1 : 0;
        // Another mirror of that name may have moved it, where this one's record was not seen.
        if (disk.moved_elsewhere() && disk.record().incoming) {
            moved_elsewhere_ = true;
            throw JobError(disk.source().text + " has moved to " + disk.moved_to() + ", not to " +
                           disk.target().text +
                           ", by another job of this name: guests may write there");
        }
    }
    if (moved == disks_.size()) {
        return false;
    }
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        disks_[i]->resume(recorded->disks.at(i));
    }
    record_epoch();
    return true;
}

void MirroredDisks::connect_again() {
    disconnect();
    for (const auto& disk : disks_) {
        disk->connect_again();
    }
    record_epoch();
}

// Another process goes on after the last one although the clock was set back.
void MirroredDisks::record_epoch() {
    try {
        record_.replace(session_);
    } catch (const std::system_error& error) {
        log_warning(error.what());
    }
}

void MirroredDisks::disconnect() {
    for (const auto& disk : disks_) {
        disk->disconnect();
    }
}

void MirroredDisks::check_not_taken_back() {
    for (const auto& disk : disks_) {
        const std::optional<bool> taken_back = disk->was_taken_back();
        if (!taken_back) {
            return;  // what was recorded there stands, as far as anybody knows
        }
        if (*taken_back) {
            status_.set_owner(Owner::unknown);
            throw JobError(disk->source().text + " was taken back meanwhile: target " +
                           disk->target().text + " is not told that it has moved there");
        }
    }
}

// All of them are looked at before one cannot be taken back any more.
void MirroredDisks::commit_once() {
    check_not_taken_back();
    std::vector<DiskMirror::ToCommit> looked_at;
    for (const auto& disk : disks_) {
        looked_at.push_back(disk->look_before_commit());
    }
    check_not_taken_back();  // the looks may have taken their time
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        if (looked_at[i].waits) {
            disks_[i]->commit();
        }
    }
}

void MirroredDisks::commit(std::chrono::seconds patience) {
    using std::chrono::milliseconds;
    using Clock = std::chrono::steady_clock;
    status_.set_owner(Owner::nobody);
    const Clock::time_point end = Clock::now() + patience;
    for (milliseconds delay = LostConnections::kMinDelay;;
         delay = std::min(2 * delay, LostConnections::kMaxDelay)) {
        try {
            commit_once();
            break;
        } catch (const ConnectionLost& lost) {
            const std::string sentence =
                std::string(
                    "the source has handed over, but the target was not told, so that "
                    "guests may write nowhere: ") +
                lost.what();
            // The next look may need the place of one of these at the server.
            for (const auto& disk : disks_) {
                if (disk->record().incoming) {
                    disk->disconnect();
                }
            }
            if (Clock::now() + delay > end || cancellation_.requested()) {
                record_epoch();
                throw JobError(sentence);
            }
            log_warning(sentence + "; trying again");
            status_.set_error(sentence);
            limits_.wait(delay, cancellation_);
        }
    }
    const bool elsewhere =
        std::ranges::any_of(disks_, [](const auto& disk) { return disk->moved_elsewhere(); });
    status_.set_owner(elsewhere ? Owner::unknown : Owner::target);
}

void MirroredDisks::forget_trackers() noexcept {
    for (const auto& disk : disks_) {
        disk->forget();
    }
}

void MirroredDisks::forget() noexcept {
    forget_trackers();
    record_.remove();
}

DiskMirror::Round MirroredDisks::catch_up(DiskMirror::Haste haste,
                                          const std::function<void(DiskMirror::Step)>& tick) {
    const bool first = first_round();
    std::vector<DiskMirror::Round> rounds(disks_.size());
    std::atomic<std::size_t> copying = disks_.size();
    auto_connections_.restart();
    in_parallel(
        disks_.size(),
        [&](std::size_t i, const std::stop_token& stop) {
            rounds[i] = disks_[i]->catch_up(haste, stop, [&](DiskMirror::Step step) {
                step == DiskMirror::Step::copying ? ++copying : --copying;
            });
        },
        [&] {
            tick(copying > 0 ? DiskMirror::Step::copying : DiskMirror::Step::flushing);
            if (copying == 0) {
                auto_connections_.restart();
            }
        });
    DiskMirror::Round all{.dirty_bytes_per_s = 0};
    for (const DiskMirror::Round& round : rounds) {
        all.dirty_bytes += round.dirty_bytes;
        all.copied_bytes += round.copied_bytes;
        all.left_bytes += round.left_bytes;
        all.dirty_bytes_per_s = sum_of_rates(all.dirty_bytes_per_s, round.dirty_bytes_per_s);
        all.copying = std::max(all.copying, round.copying);
        all.flushing = std::max(all.flushing, round.flushing);
    }
    // Some may have been through long before the others.
    if (first && disks_.size() > 1) {
        const std::optional<DiskMirror::Look> now = look();
        all.left_bytes = std::max(all.left_bytes, now ? now->dirty_bytes : 0);
    }
    return all;
}

bool MirroredDisks::are_checked() const {
    return std::all_of(disks_.begin(), disks_.end(),
                       [](const auto& disk) { return disk->is_checked(); });
}

bool MirroredDisks::first_round() const {
    return std::any_of(disks_.begin(), disks_.end(),
                       [](const auto& disk) { return disk->progress().first_round.load(); });
}

std::uint64_t MirroredDisks::done_bytes() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        sum += status_.disk(i).done_bytes();
    }
    return sum;
}

std::uint64_t MirroredDisks::durable_steps() const {
    return std::accumulate(
        disks_.begin(), disks_.end(), std::uint64_t{0},
        [](std::uint64_t sum, const auto& disk) { return sum + disk->progress().durable_steps; });
}

std::uint64_t MirroredDisks::sent_bytes() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        sum += status_.disk(i).counters.sent_bytes.load();
    }
    return sum;
}

std::uint64_t MirroredDisks::zeroed_bytes() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        sum += status_.disk(i).counters.zeroed_bytes.load();
    }
    return sum;
}

std::optional<DiskMirror::Look> MirroredDisks::look() {
    DiskMirror::Look all{.dirty_bytes = 0, .dirty_bytes_per_s = 0, .clients = {}};
    bool answered = true;
    for (const auto& disk : disks_) {
        const std::optional<DiskMirror::Look> look = disk->look();
        if (!look) {
            answered = false;
            continue;
        }
        all.dirty_bytes += look->dirty_bytes;
        all.clients.add(look->clients);
        all.dirty_bytes_per_s = sum_of_rates(all.dirty_bytes_per_s, look->dirty_bytes_per_s);
    }
    if (!answered) {
        return std::nullopt;
    }
    auto_connections_.look(
        {.sent_bytes = sent_bytes(), .zeroed_bytes = zeroed_bytes(), .clients = all.clients},
        AutoConnections::Clock::now());
    return all;
}

void MirroredDisks::throttle(Convergence::Delay delay, std::chrono::milliseconds lease) {
    for (const auto& disk : disks_) {
        disk->server().throttle(delay, lease);
    }
}

std::vector<WriterHold::Disk> MirroredDisks::to_hold() const {
    std::vector<WriterHold::Disk> held;
    for (const auto& disk : disks_) {
        held.push_back({disk->server(), disk->source(), disk->target().text});
    }
    return held;
}

std::string MirroredDisks::moved_sentence() const {
    const DiskMirror& first = *disks_.front();
    return first.source().text + " had moved to " + first.moved_to() +
           (disks_.size() > 1 ? ", and " + std::to_string(disks_.size() - 1) + " more with it,"
                              : "");
}

std::vector<DiskMirror::Options> as_recorded(const std::string& job,
                                             const std::vector<DiskMirror::Options>& named) {
    const auto record = JobRecord(job).read();
    if (!record) {
        const auto ended = ended_job_state(job);
        throw JobError("there is nothing to resume: " +
                       (ended ? "job '" + job + "' has ended: " + ended->value("phase", "")
                              : "there is no job '" + job + "'"));
    }
    const bool any_named = !named.front().copy.source.text.empty();
    if (any_named && named.size() != record->disks.size()) {
        throw JobError("job '" + job + "' has " + std::to_string(record->disks.size()) +
                       " disks, not " + std::to_string(named.size()));
    }
    std::vector<DiskMirror::Options> disks;
    for (std::size_t i = 0; i < record->disks.size(); ++i) {
        const DiskRecord& recorded = record->disks.at(i);
        DiskMirror::Options& disk = disks.emplace_back(named[any_named ? i : 0]);
        for (const auto& [location, text] : {std::pair(&disk.copy.source, recorded.source),
                                             std::pair(&disk.copy.target, recorded.target)}) {
            if (any_named && location->text != text) {
                throw JobError("job '" + job + "' mirrors " + recorded.source + " to " +
                               recorded.target + ", not '" + location->text + "'");
            }
            *location = Location::parse(text);
        }
    }
    return disks;
}

}  // namespace nbdm
