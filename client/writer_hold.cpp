// SPDX-License-Identifier: Apache-2.0
#include "client/writer_hold.h"

#include <algorithm>
#include <cmath>

#include "control/log.h"

namespace nbdm {

namespace {

using std::chrono::milliseconds;

// The lease: long against what the last copy may take, short against what a guest forgives when
// the mirror dies meanwhile.
constexpr milliseconds kMinLease{2000};
constexpr milliseconds kMaxLease{30'000};

WriterHold::Done after(double downtime_ms) {
    return {.line = "cut over: downtime " + std::to_string(std::llround(std::ceil(downtime_ms))) +
                    " ms",
            .downtime_ms = downtime_ms};
}

}  // namespace

WriterHold::Held::Held(const Disk& held, const Cancellation& cancellation, milliseconds lease)
    : disk(held), keeper(held.source, cancellation), id(held.server.hold(lease)) {}

WriterHold::Held::~Held() {
    if (settled) {
        return;
    }
    try {
        disk.server.release(id);
    } catch (const NoAnswer& error) {
        log_warning(std::string("cannot release the writers, their lease will: ") + error.what());
    } catch (const JobError&) {  // they were released at the deadline, or the lease has lapsed
    }
}

WriterHold::WriterHold(const std::vector<Disk>& disks, const Cancellation& cancellation,
                       milliseconds max_downtime)
    : max_downtime_(max_downtime),
      first_lease_(std::min(max_downtime, kMaxLease)),
      lease_(std::clamp<milliseconds>(4 * max_downtime, kMinLease, kMaxLease)),
      begun_(Clock::now()),
      deadline_(begun_ + max_downtime) {
    for (const Disk& disk : disks) {
        held_.emplace_back(disk, cancellation, first_lease_);
    }
    keeper_ = std::jthread([this](const std::stop_token& stop) { keep(stop); });
}

WriterHold::~WriterHold() {
    stop_keeping();
}

void WriterHold::check() const {
    if (lost_.load(std::memory_order_acquire)) {
        throw GivenUp("the hold on the writers was lost");
    }
    if (Clock::now() >= deadline_) {
        throw GivenUp("it would have taken longer than the allowed " +
                      std::to_string(max_downtime_.count()) + " ms");
    }
}

void WriterHold::keep(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    // The leases of the hold's begin are to end with the deadline, also when the last write does
    // not come back. Most holds do not last so long that they matter.
    Clock::time_point next = begun_ + first_lease_ / 3;
    for (;; next = std::min(Clock::now() + lease_ / 3, deadline_)) {
        changed_.wait_until(lock, stop, next, [&] { return stop.stop_requested(); });
        if (stop.stop_requested()) {
            return;
        }
        const bool over = Clock::now() >= deadline_;
        for (Held& held : held_) {
            try {
                // Not cancelled: what began under this hold ends by itself.
                over ? static_cast<void>(held.keeper.release(held.id))
                     : held.keeper.renew(held.id, lease_);
                renewed_ = true;
            } catch (const std::exception& error) {
                log_warning(std::string("the hold on the writers: ") + error.what());
                lost_.store(true, std::memory_order_release);
            }
        }
        if (over || lost_.load()) {
            return;
        }
    }
}

void WriterHold::stop_keeping() {
    keeper_.request_stop();
    if (keeper_.joinable()) {
        keeper_.join();
    }
}

// For as long as a storage may take to make the record of a move.
void WriterHold::lengthen_leases() {
    if (renewed_) {
        return;
    }
    for (const Held& held : held_) {
        try {
            held.disk.server.renew(held.id, lease_);
        } catch (const JobError& error) {
            throw GivenUp(error.what());
        }
    }
    check();
}

void WriterHold::settle() noexcept {
    for (Held& held : held_) {
        held.settled = true;
    }
}

WriterHold::Done WriterHold::retire(const std::string& job) {
    stop_keeping();
    check();
    lengthen_leases();
    try {
        const double downtime_ms = ask_to_retire(job);
        settle();
        return after(downtime_ms);
    } catch (const NoAnswer& lost) {
        log_warning(std::string("the hand-over was not answered: ") + lost.what());
        return ask_what_became();
    } catch (const JobError& refused) {
        throw GivenUp(refused.what());
    }
}

double WriterHold::ask_to_retire(const std::string& job) {
    const Held& first = held_.front();
    if (held_.size() == 1) {
        return first.disk.server.retire(first.id, first.disk.moved_to, job);
    }
    std::vector<SourceServer::Retirement> disks;
    for (const Held& held : held_) {
        disks.push_back({held.disk.source.export_name, held.id, held.disk.moved_to});
    }
    return first.disk.server.retire_together(disks, job);
}

WriterHold::Done WriterHold::release() {
    stop_keeping();
    check();
    double downtime_ms = 0;
    for (Held& held : held_) {
        // Without an answer nobody can say that the writers waited until now.
        downtime_ms = std::max(downtime_ms, held.disk.server.release(held.id));
        held.settled = true;
    }
    return after(downtime_ms);
}

// The retirement may have happened, of all disks or of none. A release that succeeds proves that it
// has not and never will.
WriterHold::Done WriterHold::ask_what_became() {
    const std::chrono::duration<double, std::milli> held_for = Clock::now() - begun_;
    bool stays = false;
    for (Held& held : held_) {
        try {
            try {
                held.disk.server.release(held.id);
                held.settled = true;
                stays = true;
            } catch (const NoAnswer&) {
                throw;
            } catch (const JobError&) {  // retired, or the lease has lapsed
                if (held.disk.server.state() == "retired") {
                    settle();
                    return {.line = "cut over: downtime at most " +
                                    std::to_string(std::llround(std::ceil(held_for.count()))) +
                                    " ms (the source's own measure was lost)"};
                }
                stays = true;
            }
        } catch (const NoAnswer&) {
            // Nothing more can be done here: the lease ends by itself, or the disk moves.
            held.settled = true;
        }
    }
    if (!stays) {
        throw HandOverUnknown("the source server does not answer; whether export '" +
                              held_.front().disk.source.export_name +
                              "' was handed over is not known: ask it before the disk is used");
    }
    throw GivenUp("the source server did not answer; the disk has not moved");
}

}  // namespace nbdm
