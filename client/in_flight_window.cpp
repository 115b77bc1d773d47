// SPDX-License-Identifier: Apache-2.0
#include "client/in_flight_window.h"

#include <algorithm>
#include <utility>

namespace nbdm {

namespace {

using namespace std::chrono_literals;

// More are kept for so much more throughput, fewer for hardly less: slices differ by a tenth when
// nothing has changed.
constexpr double kGainOfMore = 1.06;
constexpr double kLossOfFewer = 0.97;
// No further pairs of slices are needed.
constexpr double kClearGain = 1.5;
constexpr double kClearLoss = 0.7;
constexpr unsigned kPairs = 4;
// A slice sees every place of the window taken anew so often.
constexpr unsigned kTurns = 2;
// After a trial that has changed nothing; doubled each time until one does.
constexpr InFlightWindow::Clock::duration kShortestRest = 250ms;
constexpr InFlightWindow::Clock::duration kLongestRest = 8s;

}  // namespace

InFlightWindow::InFlightWindow(Limits limits) : limits_(limits), rest_(kShortestRest) {
    pieces_ = limits.first_per_worker ? std::min(limits.workers * *limits.first_per_worker, most())
                                      : least();
}

unsigned InFlightWindow::least() const noexcept {
    return std::min(kFewWorkers, limits_.workers) * std::min(kFewPerWorker, limits_.per_worker);
}

unsigned InFlightWindow::per_worker() const noexcept {
    const unsigned share = (pieces() + limits_.workers - 1) / limits_.workers;
    return std::min(std::max(share, kFewPerWorker), limits_.per_worker);
}

unsigned InFlightWindow::workers() const noexcept {
    return (pieces() + per_worker() - 1) / per_worker();
}

void InFlightWindow::set_workers(unsigned workers) noexcept {
    if (workers == limits_.workers) {
        return;
    }
    drop_trial();
    const unsigned before = std::exchange(limits_.workers, workers);
    const unsigned fewest = workers > before ? workers * kFewPerWorker : least();
    pieces_ = std::min(std::max(pieces_ * workers / before, fewest), most());
    next_trial_ = {};
    rest_ = kShortestRest;
    upwards_ = true;
}

unsigned InFlightWindow::next(bool upwards) const noexcept {
    return upwards ? std::min(2 * pieces_, most()) : std::max(pieces_ / 2, least());
}

// Nothing of another window is under way when it goes on.
void InFlightWindow::interrupted() noexcept {
    begin_slice();
    unsettled_ = 1;
}

// Fewer that reach the limit are enough, and more are worth it: as many as before did not.
void InFlightWindow::limited() noexcept {
    if (in_other_) {
        pieces_ = other_pieces_;
        drop_trial();
    } else {
        interrupted();
    }
}

void InFlightWindow::finished(std::uint64_t bytes, Clock::time_point now) noexcept {
    if (!trying_) {
        if (now >= next_trial_) {
            begin_trial();
        }
        return;
    }
    if (unsettled_ > 0) {
        if (--unsettled_ == 0) {
            begun_ = now;
        }
        return;
    }
    bytes_ += bytes;
    if (++finished_ >= kTurns * pieces() && now - begun_ >= kSlice) {
        end_slice(now);
    }
}

void InFlightWindow::begin_trial() noexcept {
    if (next(upwards_) == pieces_) {
        upwards_ = !upwards_;
    }
    other_pieces_ = next(upwards_);
    if (other_pieces_ == pieces_) {
        return;
    }
    trying_ = true;
    usual_ = other_ = {};
    pairs_ = 0;
    begin_slice();
}

void InFlightWindow::begin_slice() noexcept {
    unsettled_ = std::max(pieces_, other_pieces_);
    finished_ = 0;
    bytes_ = 0;
}

void InFlightWindow::end_slice(Clock::time_point now) noexcept {
    Rate& rate = in_other_ ? other_ : usual_;
    rate.bytes += bytes_;
    rate.time += now - begun_;
    in_other_ = !in_other_;
    if (in_other_) {
        begin_slice();
        return;
    }
    ++pairs_;
    if (usual_.bytes == 0 || other_.bytes == 0) {
        drop_trial();
        return;
    }
    const double gain = other_.per_s() / usual_.per_s();
    const bool clear = gain > kClearGain || gain < kClearLoss;
    if (clear || pairs_ == kPairs) {
        end_trial(gain > (upwards_ ? kGainOfMore : kLossOfFewer), now);
    } else {
        begin_slice();
    }
}

void InFlightWindow::end_trial(bool keep, Clock::time_point now) noexcept {
    trying_ = false;
    if (keep) {
        pieces_ = other_pieces_;
        rest_ = kShortestRest;
        next_trial_ = now;
        return;
    }
    upwards_ = !upwards_;
    next_trial_ = now + rest_;
    rest_ = std::min(2 * rest_, kLongestRest);
}

}  // namespace nbdm
