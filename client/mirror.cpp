// SPDX-License-Identifier: Apache-2.0
#include "client/mirror.h"

#include <algorithm>
#include <bit>
#include <memory>
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
// The source server is looked at this often, for what is dirty and whether the disk is still there.
constexpr milliseconds kLookInterval{500};
// Between automatic attempts to cut over, each of which holds the writers for a while: doubled
// after each failure.
constexpr milliseconds kMinAttemptDelay{1000};
constexpr milliseconds kMaxAttemptDelay{60'000};

// Writers wait: a pause that comes now takes effect when they go on.
class Urgent {
  public:
    explicit Urgent(Pace& pace) : pace_(pace) { pace_.set_urgent(true); }
    Urgent(const Urgent&) = delete;
    Urgent& operator=(const Urgent&) = delete;
    ~Urgent() { pace_.set_urgent(false); }

  private:
    Pace& pace_;
};

// What an earlier mirror of this name, killed or cut off, has sent to an nbd-mirror-server does not
// land any more once this one's connections stand: its epoch is higher, since it began later.
std::string session_context(const std::string& job) {
    const auto epoch = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::system_clock::now().time_since_epoch());
    return "nbd-mirror:session:" + job + ":" + std::to_string(epoch.count());
}

}  // namespace

// What run() works with.
struct Mirror::Setup {
    SourceServer server;
    std::unique_ptr<Side> source;
    std::unique_ptr<Side> target;
    std::unique_ptr<Scout> allocation;
    std::unique_ptr<TargetZeroes> target_zeroes;
    std::unique_ptr<Scout> dirtiness;
    std::unique_ptr<Engine> engine;
    std::optional<SourceServer::Tracker> tracker;
};

Mirror::Mirror(MirrorOptions options, JobStatus& status, JobLimits& limits,
               CutoverRequests& cutovers, const Cancellation& cancellation)
    : options_(std::move(options)),
      status_(status),
      limits_(limits),
      cutovers_(cutovers),
      cancellation_(cancellation),
      attempt_delay_(kMinAttemptDelay) {}

std::string Mirror::run() {
    Setup setup{.server = SourceServer(options_.copy.source, cancellation_),
                .source = {},
                .target = {},
                .allocation = {},
                .target_zeroes = {},
                .dirtiness = {},
                .engine = {},
                .tracker = {}};
    std::string line;
    try {
        prepare(setup);
        copy_everything(setup);
        line = stay_in_step(setup);
    } catch (const std::exception& error) {
        if (setup.tracker) {
            setup.server.drop_tracker(*setup.tracker);
        }
        cutovers_.answer(false, error.what());
        throw;
    }
    // Whoever asked for the cutover may open the target now.
    setup.engine.reset();
    setup.target.reset();
    cutovers_.answer(true, line);
    setup.server.drop_tracker(*setup.tracker);
    return line;
}

void Mirror::prepare(Setup& setup) {
    const Location& source = options_.copy.source;
    const SourceServer::About about = setup.server.about();
    if (about.state == "retired") {
        throw JobError("export '" + source.export_name + "' has moved away already");
    }
    if (about.read_only) {
        throw JobError("export '" + source.export_name +
                       "' is read-only: nothing can be written to it, 'copy' moves it");
    }
    if (is_same_disk(options_.copy.target, about.path, about.uris)) {
        throw JobError("'" + options_.copy.target.text + "' is the source itself");
    }
    setup.source = std::make_unique<Side>(Side::open_source(about.address, cancellation_));
    const std::uint64_t size = setup.source->traits().size_bytes;
    if (size == 0) {
        throw JobError("source " + source.text + " is empty: there is nothing to move");
    }
    open_target(setup, size);
    status_.set_size(size);
    status_.add_to_do(size);
    // Blocks that are dirty begin and end where the target can be written.
    const auto granularity =
        std::max(options_.granularity_bytes,
                 static_cast<std::uint32_t>(std::bit_ceil(setup.target->traits().alignment)));
    // The tracker first, the allocation map after it: what is allocated in between is dirty.
    setup.tracker = setup.server.start_tracker(options_.job, granularity);
    last_freeze_ = Clock::now();
    setup.dirtiness = setup.source->open_scout(setup.tracker->name, cancellation_);
    setup.server.check_stands(*setup.tracker);
    setup.allocation = setup.source->open_scout("", cancellation_);
    setup.engine = std::make_unique<Engine>(*setup.source, *setup.target, options_.copy.engine,
                                            status_, limits_.pace(), cancellation_);
}

void Mirror::open_target(Setup& setup, std::uint64_t source_bytes) {
    Side::TargetOptions options{.create_bytes = {},
                                .is_zero = options_.copy.target_is_zero,
                                .session = session_context(options_.job)};
    if (options_.copy.create) {
        options.create_bytes = source_bytes;
    }
    const Location& target = options_.copy.target;
    setup.target = std::make_unique<Side>(Side::open_target(target, options, cancellation_));
    check_sides(*setup.source, *setup.target);
    // A host has many names; a client of the source server is one.
    const std::string address = setup.target->local_address();
    if (!address.empty() && setup.server.has_client(address)) {
        throw JobError("'" + target.text + "' is the source itself");
    }
    if (!setup.target->traits().can_flush) {
        throw JobError("target " + target.text +
                       " cannot flush: a disk cannot be handed over to it durably");
    }
    setup.target_zeroes.reset(new TargetZeroes(known_zeroes(*setup.target, cancellation_)));
}

void Mirror::copy_everything(Setup& setup) {
    status_.set_phase(Phase::copying);
    stall_watch_.begin(StallWatch::Activity::copying, Clock::now());
    const auto tick = [&] { look_around(setup); };
    const Clock::time_point begin = Clock::now();
    setup.engine->copy(Engine::Sweep::everything, *setup.allocation, *setup.target_zeroes, tick);
    const std::chrono::duration<double> time = Clock::now() - begin;
    const std::uint64_t sent = status_.counters.sent_bytes.load();
    if (sent >= kMinBytesForRate) {
        copy_rate_bytes_per_s_ = static_cast<double>(sent) / time.count();
    }
    stall_watch_.begin(StallWatch::Activity::flushing, Clock::now());
    setup.engine->flush(tick);
    stall_watch_.begin(StallWatch::Activity::none, Clock::now());
    // Both describe what was before the copy, and hold a connection each.
    setup.allocation.reset();
    setup.target_zeroes.reset();
    status_.set_phase(Phase::catching_up);
}

std::string Mirror::stay_in_step(Setup& setup) {
    bool fitted_before = false;
    for (;;) {
        wait_while_paused(setup);
        const std::uint64_t dirty_bytes = catch_up(setup, [&] { look_around(setup); });
        const bool fits = would_be_ready(dirty_bytes);
        // A single burst of writes does not make a ready job unready.
        const bool ready = fits || (fitted_before && status_.phase() == Phase::ready);
        fitted_before = fits;
        status_.set_phase(ready ? Phase::ready : Phase::catching_up);
        if (fits && cutover_wanted()) {
            if (const std::optional<std::string> line = cut_over(setup)) {
                return *line;
            }
        }
        look_around(setup);
        if (ready) {
            cutovers_.wait(dirty_bytes == 0 ? kQuietInterval : kReadyInterval, cancellation_);
        }
    }
}

bool Mirror::cutover_wanted() const {
    return cutovers_.pending() || (options_.cut_over_when_ready && Clock::now() >= next_attempt_);
}

std::uint64_t Mirror::catch_up(Setup& setup, const std::function<void()>& tick) {
    const SourceServer::Frozen frozen = setup.server.freeze(*setup.tracker);
    stall_watch_.begin(StallWatch::Activity::copying, Clock::now());
    const Clock::time_point begin = Clock::now();
    const std::chrono::duration<double> since = begin - last_freeze_;
    last_freeze_ = begin;
    status_.set_dirty_rate(static_cast<double>(frozen.dirty_bytes) / since.count());
    status_.set_dirty(frozen.dirty_bytes);
    status_.add_to_do(frozen.dirty_bytes);
    if (frozen.dirty_bytes > 0) {
        // Nothing is known of the target's zeroes here: old data may lie under a new hole.
        TargetZeroes unknown(false);
        setup.engine->copy(Engine::Sweep::dirty, *setup.dirtiness, unknown, tick);
        if (frozen.dirty_bytes >= kMinBytesForRate) {
            const std::chrono::duration<double> time = Clock::now() - begin;
            copy_rate_bytes_per_s_ = static_cast<double>(frozen.dirty_bytes) / time.count();
        }
    }
    // Also when nothing was copied: a disk is not handed over to a target that has gone meanwhile.
    const Clock::time_point copied = Clock::now();
    stall_watch_.begin(StallWatch::Activity::flushing, Clock::now());
    setup.engine->flush(tick);
    flush_time_ = Clock::now() - copied;
    // Only now: what was acknowledged is never looked at again.
    setup.server.acknowledge(*setup.tracker, frozen.generation);
    stall_watch_.begin(StallWatch::Activity::none, Clock::now());
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
    return copy_ms + flush.count() <= static_cast<double>(limits_.max_downtime().count());
}

// The source's writes are tracked, and nothing is copied, as long as it lasts.
void Mirror::wait_while_paused(Setup& setup) {
    while (limits_.paused() != Paused::no) {
        look_around(setup);
        limits_.wait_for_change(kReadyInterval);
        if (cancellation_.requested()) {
            throw Cancelled();
        }
    }
}

std::optional<std::string> Mirror::cut_over(Setup& setup) {
    // Shrink what is left while writers still write.
    std::uint64_t dirty_bytes = UINT64_MAX;
    for (int pass = 0; pass < kMaxFinalPasses; ++pass) {
        const std::uint64_t before =
            std::exchange(dirty_bytes, catch_up(setup, [&] { look_around(setup); }));
        if (dirty_bytes == 0 || dirty_bytes > before / 2) {
            break;
        }
    }
    if (!would_be_ready(dirty_bytes)) {
        status_.set_phase(Phase::catching_up);
        return std::nullopt;  // stays asked for
    }
    if (!cutover_wanted()) {
        return std::nullopt;  // taken back meanwhile
    }
    status_.set_phase(Phase::cutting_over);
    // Said as soon as the writers go on, not when a server that stands still has let go of the last
    // request.
    bool told = false;
    const auto tell = [&](const std::exception& error) {
        if (!std::exchange(told, true)) {
            given_up(std::string("not cut over: ") + error.what());
        }
    };
    try {
        const WriterHold::Done done = hand_over(setup, tell);
        if (done.downtime_ms >= 0) {
            status_.set_downtime(done.downtime_ms);
        }
        status_.set_phase(Phase::done);
        return done.line;
    } catch (const Cancelled&) {
        throw;
    } catch (const HandOverUnknown&) {
        throw;
    } catch (const std::exception& error) {
        // Whatever it was, the writers go on. If it lasts, the next pass meets it again and fails.
        tell(error);
        return std::nullopt;
    }
}

WriterHold::Done Mirror::hand_over(Setup& setup,
                                   const std::function<void(const std::exception&)>& tell) {
    WriterHold hold(setup.server, options_.copy.source, cancellation_, limits_.max_downtime());
    const Urgent urgent(limits_.pace());
    const auto check = [&] {
        try {
            hold.check();
        } catch (const GivenUp& error) {
            tell(error);
            throw;
        }
    };
    check();
    catch_up(setup, check);
    check();
    const SourceServer::Frozen last = setup.server.freeze(*setup.tracker);
    if (last.dirty_bytes != 0) {
        // Cannot be while the writers are held; a disk in doubt is not handed over.
        throw GivenUp("the source was written to although its writers were held");
    }
    setup.server.acknowledge(*setup.tracker, last.generation);
    return options_.handover == Handover::release
               ? hold.release()
               : hold.retire(options_.copy.target.text, options_.job);
}

void Mirror::given_up(const std::string& reason) {
    next_attempt_ = Clock::now() + attempt_delay_;
    attempt_delay_ = std::min(2 * attempt_delay_, kMaxAttemptDelay);
    status_.set_error(reason);
    status_.set_phase(Phase::catching_up);
    log_warning(reason);
    cutovers_.answer(false, reason);
}

// Called again and again while a pass runs, and between passes.
void Mirror::look_around(Setup& setup) {
    const Clock::time_point now = Clock::now();
    if (now - last_look_ < kLookInterval) {
        return;
    }
    last_look_ = now;
    if (setup.engine) {
        setup.engine->use_connections(limits_.connections());
    }
    watch_progress(now);
    try {
        const SourceServer::About about = setup.server.about();
        if (about.state == "retired") {
            throw JobError(options_.copy.source.text +
                           " has moved away meanwhile, by another job's hand-over");
        }
        const auto own = std::find_if(
            about.trackers.begin(), about.trackers.end(),
            [&](const auto& each) { return each.incarnation == setup.tracker->incarnation; });
        if (own == about.trackers.end()) {
            throw JobError("the tracker of " + options_.copy.source.text +
                           " was removed: nobody knows any more what was written");
        }
        status_.set_dirty(own->dirty_bytes);
    } catch (const NoAnswer&) {
        // What is shown is old for a while; if the server is gone, the copying meets that.
    }
}

void Mirror::watch_progress(Clock::time_point now) {
    const WorkCounters& counters = status_.counters;
    if (limits_.paused() != Paused::no) {
        stall_watch_.restart(now);
        return;
    }
    const bool stalled_before = stall_watch_.stalled();
    stall_watch_.look(
        counters.moved_bytes.load() + counters.sent_bytes.load() + counters.zeroed_bytes.load(),
        now);
    if (!stall_watch_.stalled()) {
        if (stalled_before) {
            status_.set_error("");
        }
        return;
    }
    const std::string sentence = stall_watch_.sentence();
    if (!stalled_before) {
        status_.set_error(sentence);
        log_warning(sentence);
    }
    if (stall_watch_.hopeless() && status_.phase() == Phase::ready && cutover_wanted()) {
        cutovers_.answer(false, "not cut over: " + sentence);
    }
}

}  // namespace nbdm
