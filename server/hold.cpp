// SPDX-License-Identifier: Apache-2.0
#include "server/hold.h"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <random>
#include <utility>

#include "control/log.h"

namespace nbdm {

namespace {

// An id that a holder cannot have by accident.
std::string random_id() {
    std::random_device random;
    char text[17];
    std::snprintf(text, sizeof(text), "%08x%08x", random(), random());
    return text;
}

timeval to_timeval(std::chrono::milliseconds duration) {
    timeval result{};
    result.tv_sec = static_cast<time_t>(duration.count() / 1000);
    result.tv_usec = static_cast<suseconds_t>(duration.count() % 1000 * 1000);
    return result;
}

}  // namespace

Hold::Hold(event_base* base, Export& held)
    : export_(held),
      timer_(evtimer_new(
          base, [](evutil_socket_t, short, void* self) { static_cast<Hold*>(self)->lapsed(); },
          this)) {}

Hold::~Hold() {
    if (held()) {
        end(End::release, Drained::given_up);
    }
}

Hold::Begun Hold::begin(std::chrono::milliseconds lease, std::function<void(Drained)> drained) {
    if (export_.gate().retired()) {
        return Begun::retired;
    }
    if (held()) {
        return Begun::held_by_another;
    }
    id_ = random_id();
    drained_ = false;
    on_drained_ = std::move(drained);
    ++begun_count_;
    begun_ = Clock::now();
    arm(lease);
    export_.gate().hold();
    check_drained();
    return Begun::yes;
}

void Hold::check_drained() {
    if (!held() || drained_ || !export_.gate().drained()) {
        return;
    }
    drained_ = true;
    std::exchange(on_drained_, nullptr)(Drained::yes);
}

// The clock decides, not whether the loop has got round to the timer.
bool Hold::is_valid(const std::string& id) const {
    return held() && id == id_ && (retiring_ || Clock::now() < lease_end_);
}

bool Hold::renew(const std::string& id, std::chrono::milliseconds lease) {
    if (!is_valid(id)) {
        return false;
    }
    arm(lease);
    return true;
}

void Hold::release(const std::string& id, Released released) {
    if (retiring_) {
        releases_.emplace_back(id, std::move(released));
    } else if (!is_valid(id)) {
        released(std::nullopt);
    } else {
        released(end(End::release, Drained::given_up));
    }
}

bool Hold::may_retire(const std::string& id) const {
    return is_valid(id) && drained_;
}

void Hold::begin_retirement() {
    assert(held() && drained_ && !retiring_);
    retiring_ = true;
    on_lost_ = nullptr;
}

HoldTimes Hold::retire() {
    on_lost_ = nullptr;
    const HoldTimes times = end(End::retire, Drained::given_up);
    answer_releases();
    return times;
}

void Hold::cancel_retirement() {
    if (!std::exchange(retiring_, false)) {
        return;
    }
    answer_releases();
    if (held()) {
        await_lease_end();
    }
}

void Hold::answer_releases() {
    for (auto& [id, released] : std::exchange(releases_, {})) {
        release(id, std::move(released));
    }
}

void Hold::abandon() {
    if (held() && !retiring_) {
        end(End::release, Drained::given_up);
    }
}

HoldTimes Hold::end(End how, Drained drained) {
    evtimer_del(timer_.get());
    id_.clear();
    retiring_ = false;
    HoldTimes times;
    times.longest_wait = std::chrono::nanoseconds(how == End::retire ? export_.gate().retire()
                                                                     : export_.gate().release());
    times.held = Clock::now() - begun_;
    if (const auto waiting = std::exchange(on_drained_, nullptr)) {
        waiting(drained);
    }
    if (const auto lost = std::exchange(on_lost_, nullptr)) {
        lost();
    }
    return times;
}

void Hold::arm(std::chrono::milliseconds lease) {
    lease_end_ = Clock::now() + lease;
    await_lease_end();
}

void Hold::await_lease_end() {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(lease_end_ - Clock::now());
    const timeval delay = to_timeval(std::max(left, std::chrono::milliseconds(0)));
    evtimer_add(timer_.get(), &delay);
}

void Hold::lapsed() {
    if (!held() || retiring_) {
        return;
    }
    if (Clock::now() < lease_end_) {
        await_lease_end();  // the loop's clock is coarse, and may be early
    } else {
        log_warning(export_.quoted() + ": the lease of the hold has lapsed, writers go on");
        end(End::release, Drained::lapsed);
    }
}

}  // namespace nbdm
