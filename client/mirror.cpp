// SPDX-License-Identifier: Apache-2.0
#include "client/mirror.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <thread>
#include <utility>

#include "control/log.h"

namespace nbdm {

namespace {

using std::chrono::milliseconds;

// Between looks at the dirty map while nothing, or little, is written.
constexpr milliseconds kQuietInterval{250};
constexpr milliseconds kReadyInterval{100};
// Passes right before a cutover, each shorter than the one before.
constexpr int kMaxFinalPasses = 6;
// A pass shorter than this says nothing of the copy rate.
constexpr std::uint64_t kMinBytesForRate = 1 << 20;
// The lease of a hold: long against what the last copy may take, short against what a guest
// forgives when the mirror dies meanwhile.
constexpr milliseconds kMinLease{2000};
constexpr milliseconds kMaxLease{30'000};
// The dirty map is asked for its size this often while the disk is copied.
constexpr milliseconds kShowInterval{500};

// A cutover is given up: the writers go on.
class GivenUp : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

bool is_same_file(const std::string& a, const std::string& b) {
    struct stat left {};
    struct stat right {};
    return ::stat(a.c_str(), &left) == 0 && ::stat(b.c_str(), &right) == 0 &&
           left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

std::string downtime_line(double ms) {
    return "cut over: downtime " + std::to_string(std::llround(std::ceil(ms))) + " ms";
}

}  // namespace

// What run() works with.
struct Mirror::Setup {
    SourceServer server;
    std::unique_ptr<Side> source;
    std::unique_ptr<Side> target;
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Scout> dirty_scout;
    bool tracking = false;
};

// Renews a hold's lease while the last copy runs, but not past the end of the allowed downtime:
// whatever becomes of the mirror then, the writers go on. Threads: its own; failed() by the job's.
class Mirror::LeaseKeeper {
  public:
    LeaseKeeper(const Location& source, const Cancellation& cancellation, std::string hold,
                milliseconds lease, Clock::time_point deadline)
        : server_(source, cancellation),
          hold_(std::move(hold)),
          lease_(lease),
          deadline_(deadline) {
        thread_ = std::jthread([this](const std::stop_token& stop) { keep(stop); });
    }
    [[nodiscard]] bool failed() const noexcept { return failed_.load(); }

  private:
    void keep(const std::stop_token& stop) {
        std::unique_lock lock(mutex_);
        while (!changed_.wait_for(lock, stop, lease_ / 3, [&] { return stop.stop_requested(); })) {
            if (stop.stop_requested() || Clock::now() >= deadline_) {
                return;
            }
            try {
                server_.renew(hold_, lease_);
            } catch (const std::exception& error) {
                log_warning(std::string("cannot renew the hold: ") + error.what());
                failed_.store(true);
                return;
            }
        }
    }

    SourceServer server_;
    const std::string hold_;
    const milliseconds lease_;
    const Clock::time_point deadline_;
    std::atomic<bool> failed_{false};
    std::mutex mutex_;  // of the wait only
    std::condition_variable_any changed_;
    std::jthread thread_;  // last: stopped and joined first
};

Mirror::Mirror(MirrorOptions options, JobStatus& status, const Cancellation& cancellation,
               int outcome_fd)
    : options_(std::move(options)),
      status_(status),
      cancellation_(cancellation),
      outcome_fd_(outcome_fd) {}

std::string Mirror::run() {
    Setup setup{.server = SourceServer(options_.copy.source, cancellation_),
                .source = {},
                .target = {},
                .engine = {},
                .dirty_scout = {}};
    try {
        prepare(setup);
        copy_everything(setup);
        for (;;) {
            const std::uint64_t dirty_bytes = catch_up(setup, [&] { show_dirtiness(setup); });
            const bool ready = would_be_ready(dirty_bytes);
            status_.set_phase(ready ? Phase::ready : Phase::catching_up);
            bool wanted = options_.cut_over_when_ready;
            {
                const std::lock_guard lock(mutex_);
                wanted = wanted || cutover_requested_;
            }
            if (ready && wanted && cut_over(setup)) {
                break;
            }
            if (ready) {
                wait_for_events(dirty_bytes == 0 ? kQuietInterval : kReadyInterval);
            }
        }
    } catch (const std::exception& error) {
        if (setup.tracking) {
            setup.server.drop_tracker(options_.job);
        }
        report({.done = false, .line = error.what()});
        throw;
    }
    setup.server.drop_tracker(options_.job);
    const std::lock_guard lock(mutex_);
    return outcome_ ? outcome_->line : "";
}

void Mirror::prepare(Setup& setup) {
    const SourceServer::About about = setup.server.about(options_.job);
    const Location& target = options_.copy.target;
    if (about.state == "retired") {
        throw JobError("export '" + options_.copy.source.export_name + "' has moved away already");
    }
    if (about.uri.empty()) {
        throw JobError("the source server listens nowhere: its data cannot be read");
    }
    const bool target_is_source =
        target.kind == Location::Kind::path
            ? is_same_file(target.path_or_uri, about.path)
            : std::find(about.uris.begin(), about.uris.end(), target.path_or_uri) !=
                  about.uris.end();
    if (target_is_source) {
        throw JobError("'" + target.text + "' is the source itself");
    }
    setup.source = std::make_unique<Side>(
        Side::open_source(Location::parse(about.uri), cancellation_));
    const std::uint64_t size = setup.source->traits().size_bytes;
    if (size == 0) {
        throw JobError("source " + options_.copy.source.text + " is empty: there is nothing to move");
    }
    Side::TargetOptions target_options{.create_bytes = {},
                                       .is_zero = options_.copy.target_is_zero};
    if (options_.copy.create) {
        target_options.create_bytes = size;
    }
    setup.target =
        std::make_unique<Side>(Side::open_target(target, target_options, cancellation_));
    check_sides(*setup.source, *setup.target);
    if (!setup.target->traits().can_flush) {
        throw JobError("target " + target.text +
                       " cannot flush: a disk cannot be handed over to it durably");
    }
    status_.set_size(size);
    status_.add_to_do(size);
    // The tracker first, the allocation map after it: what is allocated in between is dirty.
    setup.tracking = true;
    setup.server.start_tracker(options_.job, options_.granularity_bytes);
    last_freeze_ = Clock::now();
    setup.dirty_scout = setup.source->open_scout(options_.job, cancellation_);
    setup.engine = std::make_unique<Engine>(*setup.source, *setup.target, options_.copy.engine,
                                            status_, cancellation_);
}

void Mirror::copy_everything(Setup& setup) {
    const auto scout = setup.source->open_scout("", cancellation_);
    TargetZeroes zeroes = known_zeroes(*setup.target, cancellation_);
    status_.set_phase(Phase::copying);
    const auto tick = [&] { show_dirtiness(setup); };
    const Clock::time_point begin = Clock::now();
    setup.engine->copy(Engine::Sweep::everything, *scout, zeroes, tick);
    const std::chrono::duration<double> time = Clock::now() - begin;
    const std::uint64_t sent = status_.counters.sent_bytes.load();
    if (sent >= kMinBytesForRate) {
        copy_rate_bytes_per_s_ = static_cast<double>(sent) / time.count();
    }
    setup.engine->flush(tick);
    status_.set_phase(Phase::catching_up);
}

std::uint64_t Mirror::catch_up(Setup& setup, const std::function<void()>& tick) {
    const SourceServer::Frozen frozen = setup.server.freeze(options_.job);
    const Clock::time_point begin = Clock::now();
    const std::chrono::duration<double> since = begin - last_freeze_;
    last_freeze_ = begin;
    status_.set_dirty_rate(static_cast<double>(frozen.dirty_bytes) / since.count());
    status_.set_dirty(frozen.dirty_bytes);
    status_.add_to_do(frozen.dirty_bytes);
    if (frozen.dirty_bytes > 0) {
        // Nothing is known of the target's zeroes here: old data may lie under a new hole.
        TargetZeroes unknown(false);
        setup.engine->copy(Engine::Sweep::dirty, *setup.dirty_scout, unknown, tick);
        if (frozen.dirty_bytes >= kMinBytesForRate) {
            const std::chrono::duration<double> time = Clock::now() - begin;
            copy_rate_bytes_per_s_ = static_cast<double>(frozen.dirty_bytes) / time.count();
        }
    }
    // Also when nothing was copied: a disk is not handed over to a target that has gone meanwhile.
    const Clock::time_point copied = Clock::now();
    setup.engine->flush(tick);
    flush_time_ = Clock::now() - copied;
    // Only now: what was acknowledged is never looked at again.
    setup.server.acknowledge(options_.job, frozen.generation);
    status_.set_dirty(0);
    return frozen.dirty_bytes;
}

// Whether about as much as was dirty now could be copied within the allowed downtime.
bool Mirror::would_be_ready(std::uint64_t dirty_bytes) const {
    if (dirty_bytes == 0) {
        return true;
    }
    if (copy_rate_bytes_per_s_ <= 0) {
        return dirty_bytes < kMinBytesForRate;
    }
    const std::chrono::duration<double, std::milli> flush = flush_time_;
    const double copy_ms = 1000 * static_cast<double>(dirty_bytes) / copy_rate_bytes_per_s_;
    return copy_ms + flush.count() <= static_cast<double>(options_.max_downtime.count());
}

void Mirror::wait_for_events(milliseconds limit) {
    const Clock::time_point end = Clock::now() + limit;
    std::unique_lock lock(mutex_);
    while (!cutover_requested_ && !cancellation_.requested() && Clock::now() < end) {
        changed_.wait_for(lock, std::min<Clock::duration>(milliseconds(50), end - Clock::now()));
    }
}

bool Mirror::cut_over(Setup& setup) {
    // Shrink what is left while writers still write.
    std::uint64_t dirty_bytes = UINT64_MAX;
    for (int pass = 0; pass < kMaxFinalPasses; ++pass) {
        const std::uint64_t before = std::exchange(dirty_bytes, catch_up(setup, {}));
        if (dirty_bytes == 0 || dirty_bytes > before / 2) {
            break;
        }
    }
    if (!would_be_ready(dirty_bytes)) {
        status_.set_phase(Phase::catching_up);
        return false;  // stays asked for
    }
    status_.set_phase(Phase::cutting_over);
    const milliseconds lease =
        std::clamp<milliseconds>(4 * options_.max_downtime, kMinLease, kMaxLease);
    const Clock::time_point deadline = Clock::now() + options_.max_downtime;
    std::string hold;
    try {
        hold = setup.server.hold(lease);
        {
            const LeaseKeeper keeper(options_.copy.source, cancellation_, hold, lease, deadline);
            // Looked at while requests are under way: the writers must not wait for those.
            const auto check = [&] {
                if (Clock::now() >= deadline) {
                    release_writers(setup, hold);
                    throw GivenUp("the downtime would have been longer than the allowed " +
                                  std::to_string(options_.max_downtime.count()) + " ms");
                }
            };
            copy_under_hold(setup, check);
            if (keeper.failed()) {
                throw GivenUp("the hold on the writers was lost");
            }
        }
        const double downtime_ms = hand_over(setup, hold);
        hold.clear();
        status_.set_downtime(downtime_ms);
        report({.done = true, .line = downtime_line(downtime_ms)});
        return true;
    } catch (const std::exception& error) {
        release_writers(setup, hold);
        if (dynamic_cast<const GivenUp*>(&error) == nullptr) {
            throw;
        }
        const std::string line = std::string("not cut over: ") + error.what();
        status_.set_phase(Phase::catching_up);
        status_.set_error(line);
        log_warning(line);
        report({.done = false, .line = line});
        return false;
    }
}

// Does nothing when `hold` is empty; empties it.
void Mirror::release_writers(Setup& setup, std::string& hold) {
    if (hold.empty()) {
        return;
    }
    try {
        setup.server.release(std::exchange(hold, {}));
    } catch (const JobError& lapsed) {
        log_warning(std::string("cannot release the writers, their lease will: ") + lapsed.what());
    }
}

void Mirror::copy_under_hold(Setup& setup, const std::function<void()>& check) {
    check();
    catch_up(setup, check);
    check();
    const SourceServer::Frozen last = setup.server.freeze(options_.job);
    if (last.dirty_bytes != 0) {
        // Cannot be while the writers are held; a disk in doubt is not handed over.
        throw GivenUp("the source was written to although its writers were held");
    }
    setup.server.acknowledge(options_.job, last.generation);
    check();
}

double Mirror::hand_over(Setup& setup, const std::string& hold) {
    if (options_.handover == Handover::release) {
        return setup.server.release(hold);
    }
    try {
        return setup.server.retire(hold, options_.copy.target.text, options_.job);
    } catch (const NoAnswer& lost) {
        // It may have happened. A release that succeeds proves that it has not and never will.
        log_warning(std::string("the hand-over was not answered: ") + lost.what());
        try {
            setup.server.release(hold);
        } catch (const NoAnswer&) {
            throw JobError("the source server does not answer any more; whether export '" +
                           options_.copy.source.export_name +
                           "' was handed over is not known: ask it before the disk is used");
        } catch (const JobError&) {
            if (setup.server.about(options_.job).state == "retired") {
                return 0;  // the time is lost with the answer
            }
        }
        throw GivenUp("the source server did not answer the hand-over; the disk has not moved");
    } catch (const Cancelled&) {
        throw;
    } catch (const JobError& refused) {
        throw GivenUp(refused.what());
    }
}

void Mirror::show_dirtiness(Setup& setup) {
    const Clock::time_point now = Clock::now();
    if (now - last_shown_ < kShowInterval) {
        return;
    }
    last_shown_ = now;
    status_.set_dirty(setup.server.about(options_.job).dirty_bytes);
}

void Mirror::request_cutover() {
    const std::lock_guard lock(mutex_);
    cutover_requested_ = true;
    changed_.notify_all();
}

std::optional<CutoverOutcome> Mirror::take_outcome() {
    const std::lock_guard lock(mutex_);
    return outcome_;
}

void Mirror::report(CutoverOutcome outcome) {
    {
        const std::lock_guard lock(mutex_);
        cutover_requested_ = false;
        outcome_ = std::move(outcome);
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(outcome_fd_, &one, sizeof(one));
}

}  // namespace nbdm
