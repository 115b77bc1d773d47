// SPDX-License-Identifier: Apache-2.0
#include "server/hand_overs.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <future>
#include <pthread.h>
#include <thread>
#include <utility>

#include "control/log.h"
#include "iothread/event_fd.h"

namespace nbdm {

// One hand-over on its way to the storage. Its thread prepares the record, asks the loop whether
// the holds still stand, and makes it durable.
//
// Threads: the main thread; stage() is set by its own, and says whose the results are.
class HandOvers::Recording {
  public:
    enum class Stage { preparing, prepared, ended };

    Recording(const OwnershipRecords& records, std::vector<Disk> disks, const std::string& job,
              Done done, int progress_fd)
        : disks_(std::move(disks)),
          done_(std::move(done)),
          progress_fd_(progress_fd),
          thread_([this, &records, job](const std::stop_token& stop) { run(records, job, stop); }) {
    }
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;
    ~Recording() { decide(false); }  // and asks its thread to stop

    [[nodiscard]] const std::vector<Disk>& disks() const noexcept { return disks_; }
    [[nodiscard]] Stage stage() const noexcept { return stage_.load(std::memory_order_acquire); }
    [[nodiscard]] bool decided() const noexcept { return decided_; }
    [[nodiscard]] bool may_be_durable() const noexcept { return may_be_durable_; }
    // Whether it is to become durable; the first word counts.
    void decide(bool commit) {
        if (!std::exchange(decided_, true)) {
            may_be_durable_ = commit;
            verdict_.set_value(commit);
        }
    }
    // When it has ended: what is recorded of each disk. Empty: nothing is.
    [[nodiscard]] std::vector<MoveRecord>& moves() noexcept { return moves_; }
    [[nodiscard]] const std::string& error() const noexcept { return error_; }

    // Answers whoever asked for it; the first answer counts.
    void answer(const Outcome& outcome) {
        if (const Done done = std::exchange(done_, nullptr)) {
            done(outcome);
        }
    }

  private:
    void run(const OwnershipRecords& records, const std::string& job,
             const std::stop_token& stop) noexcept {
        ::pthread_setname_np(::pthread_self(), "hand-over");
        try {
            std::vector<OwnershipRecords::Move> moves;
            for (const Disk& each : disks_) {
                moves.push_back({each.moved, each.moved_to});
            }
            OwnershipRecords::PreparedMoves prepared = records.prepare_moves(moves, job);
            reach(Stage::prepared);
            if (verdict_.get_future().get()) {
                moves_ = prepared.commit(stop);
            }
        } catch (const std::exception& error) {
            error_ = error.what();
        }
        reach(Stage::ended);
    }
    void reach(Stage stage) noexcept {
        stage_.store(stage, std::memory_order_release);
        ring_event_fd(progress_fd_);
    }

    const std::vector<Disk> disks_;
    Done done_;
    const int progress_fd_;
    std::atomic<Stage> stage_{Stage::preparing};
    std::promise<bool> verdict_;
    bool decided_ = false;
    bool may_be_durable_ = false;
    std::vector<MoveRecord> moves_;
    std::string error_;
    std::jthread thread_;  // the last: it uses all above
};

HandOvers::HandOvers(event_base* base, const OwnershipRecords& records,
                     std::function<Hold&(const Export&)> hold_of, Settled settled)
    : records_(records),
      hold_of_(std::move(hold_of)),
      settled_(std::move(settled)),
      progress_fd_(make_event_fd()),
      watch_(event_new(
          base, progress_fd_.get(), EV_READ | EV_PERSIST,
          [](evutil_socket_t, short, void* self) { static_cast<HandOvers*>(self)->proceed(); },
          this)) {
    event_add(watch_.get(), nullptr);
}

HandOvers::~HandOvers() {
    for (const auto& each : under_way_) {
        forget_holds(*each);
    }
}

void HandOvers::begin(std::vector<Disk> disks, const std::string& job, Done done) {
    for (const Disk& each : disks) {
        if (concerns(each.moved)) {
            done({.kind = Outcome::Kind::under_way, .disk = &each});
            return;
        }
    }
    if (const Disk* lost = find_not_held(disks)) {
        done({.kind = Outcome::Kind::not_held, .disk = lost});
        return;
    }
    try {
        under_way_.push_back(
            std::make_unique<Recording>(records_, std::move(disks), job, done, progress_fd_.get()));
    } catch (const std::system_error& error) {
        done({.kind = Outcome::Kind::not_recorded,
              .error = std::string("cannot make a thread for the record: ") + error.what()});
        return;
    }
    Recording& begun = *under_way_.back();
    for (const Disk& each : begun.disks()) {
        hold_of_(each.moved).on_lost([this, &begun, &each] { give_up(begun, each); });
    }
}

const MoveRecord* HandOvers::move_of(const Export& served) const {
    const auto found = moves_.find(&served);
    return found == moves_.end() ? nullptr : &found->second;
}

std::string HandOvers::moved_sentence(const Export& served) const {
    return nbdm::moved_sentence(served, moves_.at(&served));
}

const HandOvers::Disk* HandOvers::find_not_held(const std::vector<Disk>& disks) const {
    const auto lost = std::ranges::find_if_not(
        disks, [&](const Disk& each) { return hold_of_(each.moved).may_retire(each.hold_id); });
    return lost == disks.end() ? nullptr : &*lost;
}

bool HandOvers::concerns(const Export& served) const {
    return std::ranges::any_of(under_way_, [&](const auto& each) {
        return std::ranges::any_of(each->disks(),
                                   [&](const Disk& disk) { return &disk.moved == &served; });
    });
}

bool HandOvers::may_be_durable() const {
    return std::ranges::any_of(under_way_, [](const auto& each) { return each->may_be_durable(); });
}

void HandOvers::forget_holds(const Recording& recording) {
    for (const Disk& each : recording.disks()) {
        hold_of_(each.moved).on_lost(nullptr);
    }
}

// Its thread may come back much later.
void HandOvers::give_up(Recording& recording, const Disk& lost) {
    forget_holds(recording);
    recording.decide(false);
    recording.answer({.kind = Outcome::Kind::not_held, .disk = &lost});
}

void HandOvers::proceed() {
    clear_event_fd(progress_fd_.get());
    std::list<std::unique_ptr<Recording>> ended;
    for (auto each = under_way_.begin(); each != under_way_.end();) {
        Recording& recording = **each;
        const auto next = std::next(each);
        if (recording.stage() == Recording::Stage::ended) {
            ended.splice(ended.end(), under_way_, each);
        } else if (recording.stage() == Recording::Stage::prepared && !recording.decided()) {
            decide(recording);
        }
        each = next;
    }
    for (const auto& each : ended) {
        finish(*each);
    }
}

void HandOvers::decide(Recording& prepared) {
    if (const Disk* lost = find_not_held(prepared.disks())) {
        give_up(prepared, *lost);
        return;
    }
    for (const Disk& each : prepared.disks()) {
        hold_of_(each.moved).begin_retirement();
    }
    prepared.decide(true);
}

void HandOvers::finish(Recording& ended) {
    forget_holds(ended);
    std::vector<MoveRecord>& moves = ended.moves();
    Outcome outcome{.kind = Outcome::Kind::not_recorded, .error = ended.error()};
    if (!moves.empty()) {
        outcome.kind = Outcome::Kind::moved;
        for (std::size_t i = 0; i < moves.size(); ++i) {
            set_moved(ended.disks()[i].moved, std::move(moves[i]));
        }
        for (const Disk& each : ended.disks()) {
            outcome.times.push_back(hold_of_(each.moved).retire());
        }
    } else {
        for (const Disk& each : ended.disks()) {
            hold_of_(each.moved).cancel_retirement();
        }
    }
    if (!outcome.error.empty()) {
        // Who asked may have left by now.
        log_error("the hand-over of " + ended.disks().front().moved.quoted() +
                  (ended.disks().size() > 1 ? " and others" : "") +
                  " is not recorded: " + outcome.error);
    }
    ended.answer(outcome);
    settled_(moves.empty() ? std::vector<Disk>() : ended.disks());
}

void HandOvers::set_moved(const Export& served, MoveRecord record) {
    moves_.insert_or_assign(&served, std::move(record));
}

}  // namespace nbdm
