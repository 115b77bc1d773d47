// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <event2/event.h>

#include "control/event.h"
#include "iothread/unique_fd.h"
#include "server/export.h"
#include "server/hold.h"
#include "server/ownership.h"

namespace nbdm {

// The disks of a server that have moved away, and those that are about to: a hand-over is made
// durable on a thread of its own, since the storage of its record may stand still, and the leases
// of other holds must not stand still with it.
//
// Invariant: from the moment a record may become durable until it is known whether it has, the
// holds of its disks do not end, and so nobody writes to them. Before that they may, and then the
// record does not become durable.
//
// Threads: the main thread; it is told of what happens by the event loop.
class HandOvers {
  public:
    struct Disk {
        Export& moved;
        std::string hold_id;
        std::string moved_to;
    };
    struct Outcome {
        enum class Kind { moved, not_held, under_way, not_recorded };
        Kind kind = Kind::not_held;
        std::vector<HoldTimes> times = {};  // moved: of each disk, in their order
        const Disk* disk = nullptr;         // not_held, under_way: the first of which that is so
        std::string error = {};             // not_recorded: a sentence
    };
    using Done = std::function<void(const Outcome&)>;

    // What has moved when a hand-over is not under way any more; nothing when it came to nothing.
    using Settled = std::function<void(const std::vector<Disk>& moved)>;

    // `hold_of` gives an export's hold. `records`, the exports and their holds outlive this. Throws
    // std::system_error.
    HandOvers(event_base* base, const OwnershipRecords& records,
              std::function<Hold&(const Export&)> hold_of, Settled settled);
    HandOvers(const HandOvers&) = delete;
    HandOvers& operator=(const HandOvers&) = delete;
    ~HandOvers();  // waits for what is under way; nobody is told of it

    // Hands the held disks over for good, all or none: their writers are refused from then on.
    // `done` is called once, now or from the loop: with `not_held` also when a lease lapses before
    // the record could become durable.
    void begin(std::vector<Disk> disks, const std::string& job, Done done);
    // One is under way, or was given up and its thread has not come back.
    [[nodiscard]] bool under_way() const noexcept { return !under_way_.empty(); }
    // One is, and nobody can say whether its disks have moved.
    [[nodiscard]] bool may_be_durable() const;

    // It has moved away, by this record.
    void set_moved(const Export& served, MoveRecord record);
    // Null: it is here.
    [[nodiscard]] const MoveRecord* move_of(const Export& served) const;
    // Of one that is not.
    [[nodiscard]] std::string moved_sentence(const Export& served) const;

  private:
    class Recording;

    [[nodiscard]] const Disk* find_not_held(const std::vector<Disk>& disks) const;
    [[nodiscard]] bool concerns(const Export& served) const;
    void forget_holds(const Recording& recording);
    void give_up(Recording& recording, const Disk& lost);
    void proceed();
    void decide(Recording& prepared);
    void finish(Recording& ended);

    const OwnershipRecords& records_;
    const std::function<Hold&(const Export&)> hold_of_;
    const Settled settled_;
    const UniqueFd progress_fd_;  // rung by a recording
    const EventPointer watch_;
    std::map<const Export*, MoveRecord> moves_;
    std::list<std::unique_ptr<Recording>> under_way_;
};

}  // namespace nbdm
