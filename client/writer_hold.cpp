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

WriterHold::WriterHold(SourceServer& server, const Location& source,
                       const Cancellation& cancellation, milliseconds max_downtime)
    : server_(server),
      export_name_(source.export_name),
      max_downtime_(max_downtime),
      lease_(std::clamp<milliseconds>(4 * max_downtime, kMinLease, kMaxLease)),
      begun_(Clock::now()),
      deadline_(begun_ + max_downtime),
      keeper_server_(source, cancellation),
      id_(server.hold(max_downtime)),
      keeper_([this](const std::stop_token& stop) { keep(stop); }) {}

WriterHold::~WriterHold() {
    stop_keeping();
    if (ended_) {
        return;
    }
    try {
        server_.release(id_);
    } catch (const NoAnswer& error) {
        log_warning(std::string("cannot release the writers, their lease will: ") + error.what());
    } catch (const JobError&) {  // they were released at the deadline, or the lease has lapsed
    }
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
    // The lease of the hold's begin was to end with the deadline.
    Clock::time_point next = Clock::now();
    for (;; next = std::min(Clock::now() + lease_ / 3, deadline_)) {
        changed_.wait_until(lock, stop, next, [&] { return stop.stop_requested(); });
        if (stop.stop_requested()) {
            return;
        }
        try {
            if (Clock::now() >= deadline_) {
                keeper_server_.release(id_);
                return;
            }
            // Not cancelled: what began under this hold ends by itself.
            keeper_server_.renew(id_, lease_);
        } catch (const std::exception& error) {
            log_warning(std::string("the hold on the writers: ") + error.what());
            lost_.store(true, std::memory_order_release);
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

WriterHold::Done WriterHold::retire(const std::string& moved_to, const std::string& job) {
    stop_keeping();
    check();
    try {
        const double downtime_ms = server_.retire(id_, moved_to, job);
        ended_ = true;
        return after(downtime_ms);
    } catch (const NoAnswer& lost) {
        log_warning(std::string("the hand-over was not answered: ") + lost.what());
        return ask_what_became();
    } catch (const JobError& refused) {
        throw GivenUp(refused.what());
    }
}

WriterHold::Done WriterHold::release() {
    stop_keeping();
    check();
    // Without an answer nobody can say that the writers waited until now.
    const double downtime_ms = server_.release(id_);
    ended_ = true;
    return after(downtime_ms);
}

// The retirement may have happened. A release that succeeds proves that it has not and never will.
WriterHold::Done WriterHold::ask_what_became() {
    const std::chrono::duration<double, std::milli> held = Clock::now() - begun_;
    try {
        try {
            server_.release(id_);
            ended_ = true;
        } catch (const NoAnswer&) {
            throw;
        } catch (const JobError&) {  // retired, or the lease has lapsed
            if (server_.state() == "retired") {
                ended_ = true;
                return {.line = "cut over: downtime at most " +
                                std::to_string(std::llround(std::ceil(held.count()))) +
                                " ms (the source's own measure was lost)"};
            }
        }
    } catch (const NoAnswer&) {
        ended_ = true;  // nothing more can be done here; the lease ends by itself
        throw HandOverUnknown("the source server does not answer; whether export '" + export_name_ +
                              "' was handed over is not known: ask it before the disk is used");
    }
    throw GivenUp("the source server did not answer; the disk has not moved");
}

}  // namespace nbdm
