// SPDX-License-Identifier: Apache-2.0
#include "server/landing.h"

#include <exception>
#include <utility>

#include "control/log.h"

namespace nbdm {

void Landing::expect(std::function<void(const std::string&)> record, WaitingPlaces& places) {
    record_ = std::move(record);
    places_ = &places;
    state_.store(State::expected);
}

std::string_view Landing::commit(const std::string& job,
                                 const std::function<std::string_view()>& enter) {
    State now = State::expected;
    if (!state_.compare_exchange_strong(now, State::committing)) {
        if (now != State::landed) {
            return "another client hands over just now";
        }
        return job == landed_by_ ? "" : "the disk has landed here by another mirror's hand-over";
    }
    std::string_view refusal = enter();
    if (refusal.empty()) {
        try {
            record_(job);
            landed_by_ = job;
        } catch (const std::exception& error) {
            log_error(std::string("a disk that has landed cannot be used: ") + error.what());
            refusal = "that the disk has landed cannot be recorded; the server's log says why";
        }
    }
    state_.store(refusal.empty() ? State::landed : State::expected);
    if (refusal.empty()) {
        wake_waiting();
    }
    return refusal;
}

void Landing::wake_waiting() noexcept {
    const std::lock_guard lock(mutex_);
    for (IoThread* thread : waiting_) {
        thread->wake();
    }
}

Landing::Waiting::Waiting(Landing& landing, IoThread& thread) : landing_(landing) {
    if (landing_.places_->take()) {
        const std::lock_guard lock(landing_.mutex_);
        place_ = landing_.waiting_.insert(landing_.waiting_.end(), &thread);
    }
}

Landing::Waiting::~Waiting() {
    if (place_) {
        const std::lock_guard lock(landing_.mutex_);
        landing_.waiting_.erase(*place_);
        landing_.places_->give_back();
    }
}

}  // namespace nbdm
