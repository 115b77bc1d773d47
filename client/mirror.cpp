// SPDX-License-Identifier: Apache-2.0
#include "client/mirror.h"

#include <algorithm>
#include <utility>

#include "control/log.h"

namespace nbdm {

namespace {

using std::chrono::milliseconds;

// Between looks at the dirty map while nothing, or little, is written.
constexpr milliseconds kQuietInterval{250};
constexpr milliseconds kReadyInterval{100};
// Rounds right before a cutover, each shorter than the one before.
constexpr int kMaxFinalRounds = 6;
// The source server is looked at this often, for what is dirty and whether the disk is still there.
constexpr milliseconds kLookInterval = Convergence::kInterval;
// Between automatic attempts to cut over, each of which holds the writers for a while: doubled
// after each failure.
constexpr milliseconds kMinAttemptDelay{1000};
constexpr milliseconds kMaxAttemptDelay{60'000};
// A cutover waits this long for its phase to be on record, where a killed mirror's is read.
constexpr milliseconds kRecordLimit{2000};

}  // namespace

Mirror::Mirror(MirrorOptions options, JobStatus& status, JobLimits& limits,
               CutoverRequests& cutovers, const Cancellation& cancellation)
    : options_(std::move(options)),
      status_(status),
      limits_(limits),
      cutovers_(cutovers),
      cancellation_(cancellation),
      hooks_(options_.hooks, status, cancellation),
      disks_(options_.job, options_.disks, status, limits, cancellation),
      lost_connections_(options_.reconnect_timeout),
      readiness_(status, limits),
      throttle_(
          options_.may_throttle, status,
          [this](Convergence::Delay delay, milliseconds lease) { disks_.throttle(delay, lease); }),
      attempt_delay_(kMinAttemptDelay) {}

std::string Mirror::run() {
    try {
        std::string line = mirror_and_hand_over();
        throttle_.stop();
        // While this mirror's connections stand, no other one gets in between.
        if (retired_) {
            disks_.commit(options_.reconnect_timeout);
        }
        // Whoever asked for the cutover may open the target now.
        disks_.disconnect();
        enter(Phase::done);
        cutovers_.answer(true, line);
        disks_.forget();
        hooks_.finish();
        return line;
    } catch (const Cancelled& cancelled) {
        throttle_.stop();
        disks_.forget();
        status_.set_error("");
        enter(Phase::cancelled);
        cutovers_.answer(false, cancelled.what());
        disks_.disconnect();
        hooks_.finish();
        throw;
    } catch (const std::exception& error) {
        throttle_.stop();
        std::string sentence = error.what();
        if (disks_.can_be_resumed()) {
            sentence += "; 'nbd-mirror mirror --resume --job " + options_.job +
                        "' goes on with what is left";
        }
        status_.set_error(sentence);
        enter(Phase::failed);
        cutovers_.answer(false, sentence);
        disks_.disconnect();
        hooks_.finish();
        throw JobError(sentence);
    }
}

void Mirror::enter(Phase phase) {
    status_.set_phase(phase);
    hooks_.follow(phase);
}

std::string Mirror::mirror_and_hand_over() {
    hooks_.begin(HookStep::prepare, [] {});
    if (!options_.resume) {
        disks_.begin();
    } else if (!disks_.resume()) {
        retired_ = true;
        // No hooks: that cutover began in another process.
        status_.set_phase(Phase::cutting_over);
        return "cut over: " + disks_.moved_sentence() + " when the mirror ended";
    }
    status_.set_owner(Owner::source);
    for (;;) {
        try {
            if (disks_.first_round()) {
                copy_everything();
            }
            return stay_in_step();
        } catch (const ConnectionLost& lost) {
            connect_again(lost.what());
        }
    }
}

void Mirror::connect_again(const std::string& reason) {
    const std::string sentence = reason + "; trying again";
    log_warning(sentence);
    status_.set_error(sentence);
    status_.set_expected_downtime(std::nullopt);
    throttle_.stop();
    enter(disks_.first_round() ? Phase::copying : Phase::catching_up);
    lost_connections_.lost(disks_.durable_steps(), Clock::now());
    for (milliseconds delay = LostConnections::kMinDelay;;
         delay = std::min(2 * delay, LostConnections::kMaxDelay)) {
        if (const auto given_up = lost_connections_.given_up(Clock::now() + delay)) {
            throw JobError(reason + "; " + *given_up);
        }
        limits_.wait(delay, cancellation_);
        if (cancellation_.requested()) {
            throw Cancelled();
        }
        try {
            disks_.connect_again();
            break;
        } catch (const ConnectionLost&) {  // as before
        }
    }
    lost_connections_.connected(Clock::now());
    log_info("connected again");
    status_.set_error("");
}

void Mirror::copy_everything() {
    enter(Phase::copying);
    catch_up();
    enter(Phase::catching_up);
    // It is known by now how fast it goes.
    if (readiness_.last_round_fits() && disks_.are_checked()) {
        enter(Phase::ready);
    }
}

std::string Mirror::stay_in_step() {
    bool fitted_before = status_.phase() == Phase::ready;
    for (;;) {
        wait_while_paused();
        const DiskMirror::Round round = catch_up(DiskMirror::Haste::none, [this] {
            look_around();
            // A round may last: much was written, or a limit has come. Not so in a cutover, whose
            // hooks were told that it began.
            if (status_.phase() == Phase::ready && readiness_.is_outgrown()) {
                enter(Phase::catching_up);
            }
        });
        const bool little_left = readiness_.last_round_fits();
        const bool fits = little_left && disks_.are_checked();
        // A single burst of writes does not make a ready job unready.
        const bool ready = fits || (fitted_before && status_.phase() == Phase::ready);
        fitted_before = fits;
        enter(ready ? Phase::ready : Phase::catching_up);
        if (fits && cutover_wanted()) {
            if (const std::optional<std::string> line = cut_over()) {
                return *line;
            }
        }
        look_around();
        if (ready) {
            cutovers_.wait(round.dirty_bytes == 0 ? kQuietInterval : kReadyInterval, cancellation_);
        } else if (little_left || round.dirty_bytes == 0) {
            limits_.wait_for_change(kReadyInterval);  // a cutover that is asked for has to wait
        }
    }
}

bool Mirror::cutover_wanted() const {
    return cutovers_.pending() || (options_.cut_over_when_ready && Clock::now() >= next_attempt_);
}

bool Mirror::may_cut_over() const {
    return cutover_wanted() && limits_.paused() == Paused::no;
}

DiskMirror::Round Mirror::catch_up() {
    return catch_up(DiskMirror::Haste::none, [this] { look_around(); });
}

DiskMirror::Round Mirror::catch_up(DiskMirror::Haste haste, const std::function<void()>& tick) {
    stall_watch_.begin(StallWatch::Activity::copying, Clock::now());
    const std::uint64_t sent_before = disks_.sent_bytes();
    const bool first = disks_.first_round();
    auto step_before = DiskMirror::Step::copying;
    const DiskMirror::Round round = disks_.catch_up(haste, [&](DiskMirror::Step step) {
        if (step != std::exchange(step_before, step)) {
            stall_watch_.begin(step == DiskMirror::Step::copying ? StallWatch::Activity::copying
                                                                 : StallWatch::Activity::flushing,
                               Clock::now());
        }
        tick();
    });
    stall_watch_.begin(StallWatch::Activity::none, Clock::now());
    lost_connections_.round_ended();
    if (round.dirty_bytes_per_s) {
        dirty_bytes_per_s_ = first ? 0 : *round.dirty_bytes_per_s;
    }
    // Of the first round most may be holes.
    const std::uint64_t copied = first ? disks_.sent_bytes() - sent_before : round.copied_bytes;
    // The first round found all of the disks: what it has left is what the next one finds.
    readiness_.round_ended({.dirty_bytes = first ? round.left_bytes : round.dirty_bytes,
                            .copied_bytes = copied,
                            .copying = round.copying,
                            .flushing = round.flushing});
    return round;
}

// The source's writes are tracked, and nothing is copied, as long as it lasts.
void Mirror::wait_while_paused() {
    while (limits_.paused() != Paused::no) {
        look_around();
        limits_.wait_for_change(kReadyInterval);
        if (cancellation_.requested()) {
            throw Cancelled();
        }
    }
}

std::optional<std::string> Mirror::cut_over() {
    try {
        // The hooks may take their time; meanwhile the writers go on, and so does the copying.
        hooks_.begin(HookStep::cutover, [this] {
            catch_up();
            look_around();
        });
    } catch (const HookRefused& refusal) {
        given_up(std::string("not cut over: ") + refusal.what(), Phase::ready);
        return std::nullopt;
    }
    enter(Phase::cutting_over);
    status_.wait_until_recorded(kRecordLimit);
    // Shrink what is left while writers still write.
    std::uint64_t dirty_bytes = UINT64_MAX;
    for (int i = 0; i < kMaxFinalRounds; ++i) {
        const DiskMirror::Round round = catch_up(DiskMirror::Haste::none, [this] {
            look_around();
            watch_progress(Clock::now());
            if (!may_cut_over() || stall_watch_.stalled()) {
                enter(Phase::ready);  // a round may last for as long as a pause
            }
        });
        if (status_.phase() != Phase::cutting_over) {
            return std::nullopt;  // taken back or paused meanwhile, or stays asked for
        }
        const std::uint64_t before = std::exchange(dirty_bytes, round.dirty_bytes);
        if (dirty_bytes == 0 || dirty_bytes > before / 2) {
            break;
        }
    }
    if (!readiness_.last_round_fits() || !disks_.are_checked()) {
        enter(Phase::catching_up);
        return std::nullopt;  // stays asked for
    }
    if (!may_cut_over()) {
        enter(Phase::ready);
        return std::nullopt;
    }
    // Said as soon as the writers go on, not when a server that stands still has let go of the last
    // request.
    bool told = false;
    const auto tell = [&](const std::exception& error) {
        if (!std::exchange(told, true)) {
            given_up(std::string("not cut over: ") + error.what(), Phase::catching_up);
        }
    };
    try {
        const WriterHold::Done done = hand_over(tell);
        if (done.downtime_ms >= 0) {
            status_.set_downtime(done.downtime_ms);
        }
        return done.line;
    } catch (const Cancelled&) {
        throw;
    } catch (const VerificationFailed&) {
        throw;  // it would not be better the next time
    } catch (const HandOverUnknown&) {
        status_.set_owner(Owner::unknown);
        throw;
    } catch (const NoAnswer& error) {
        tell(error);  // of the source's server: no connection that copies is lost
        return std::nullopt;
    } catch (const ConnectionLost& lost) {
        tell(lost);
        throw;  // the next rounds might do without that connection, and the next hold not
    } catch (const std::exception& error) {
        // Whatever it was, the writers go on. If it lasts, the next round meets it again and fails.
        tell(error);
        return std::nullopt;
    }
}

WriterHold::Done Mirror::hand_over(const std::function<void(const std::exception&)>& tell) {
    WriterHold hold(disks_.to_hold(), cancellation_, limits_.max_downtime());
    const Pace::Urgent urgent(limits_.pace());
    const auto check = [&] {
        try {
            hold.check();
        } catch (const GivenUp& error) {
            tell(error);
            throw;
        }
    };
    check();
    DiskMirror::Round last;
    try {
        last = catch_up(DiskMirror::Haste::writers_wait, check);
    } catch (const VerificationFailed&) {
        check();  // or the writers, who went on
        throw;
    }
    check();
    if (last.left_bytes > 0) {
        // Cannot be while the writers are held; a disk in doubt is not handed over.
        throw GivenUp("the source was written to although its writers were held");
    }
    if (options_.handover != Handover::retire) {
        return hold.release();
    }
    const WriterHold::Done done = hold.retire(options_.job);
    retired_ = true;
    return done;
}

void Mirror::given_up(const std::string& reason, Phase next) {
    next_attempt_ = Clock::now() + attempt_delay_;
    attempt_delay_ = std::min(2 * attempt_delay_, kMaxAttemptDelay);
    status_.set_error(reason);
    enter(next);
    log_warning(reason);
    cutovers_.answer(false, reason);
}

// Called again and again while a round runs, and between rounds.
void Mirror::look_around() {
    const Clock::time_point now = Clock::now();
    if (now - last_look_ < kLookInterval) {
        return;
    }
    last_look_ = now;
    watch_progress(now);
    const std::optional<DiskMirror::Look> look = disks_.look();
    // In the first round everything else is left to copy, too.
    if (look && !disks_.first_round()) {
        readiness_.look(look->dirty_bytes, now);
    }
    const Phase phase = status_.phase();
    const bool behind = phase >= Phase::catching_up && phase <= Phase::cutting_over;
    // While nothing is copied, slower writers gain nothing.
    if (!behind || limits_.paused() != Paused::no || stall_watch_.stalled()) {
        throttle_.stop();
        return;
    }
    const std::optional<double> rate = look ? look->dirty_bytes_per_s : std::nullopt;
    throttle_.look({.fits = readiness_.last_round_fits(),
                    .cutover_wanted = cutover_wanted(),
                    .dirty_bytes_per_s = rate.value_or(dirty_bytes_per_s_),
                    .copy_bytes_per_s = readiness_.copy_bytes_per_s()});
}

void Mirror::watch_progress(Clock::time_point now) {
    if (limits_.paused() != Paused::no) {
        stall_watch_.restart(now);
        return;
    }
    const bool stalled_before = stall_watch_.stalled();
    stall_watch_.look(disks_.done_bytes(), now);
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
    if (stall_watch_.hopeless() && readiness_.last_round_fits() && cutover_wanted()) {
        cutovers_.answer(false, "not cut over: " + sentence);
    }
}

}  // namespace nbdm
