// SPDX-License-Identifier: Apache-2.0
#include "client/connection_tuner.h"

#include <algorithm>
#include <utility>

namespace nbdm {

namespace {

// More connections are kept when they copy so much more, fewer when they copy hardly less: nobody
// should have them for nothing.
constexpr double kGainOfMore = 1.05;
constexpr double kLossOfFewer = 0.98;
// Of the latency beside few connections.
constexpr double kTooSlow = 1.5;
// Whether it is less says nothing: the chance by which a thread gets a CPU is larger.
constexpr double kUnnoticedUs = 100;
// How much a look tells of that.
constexpr double kLearning = 0.5;
// A single burst of one client is no reason to give way.
constexpr unsigned kSlowLooks = 2;
// That a throughput is the mean of.
constexpr unsigned kRateLooks = 2;
// After a failed trial; doubled each time until one succeeds.
constexpr unsigned kShortestRest = 1;
constexpr unsigned kLongestRest = 16;
// After giving way; doubled each time.
constexpr unsigned kShortestRecovery = 4;
constexpr unsigned kLongestRecovery = 32;

}  // namespace

bool ConnectionTuner::Baseline::is_exceeded_by(std::optional<double> us) const noexcept {
    return us && us_ && *us > kTooSlow * std::max(*us_, kUnnoticedUs);
}

void ConnectionTuner::Baseline::learn(std::optional<double> us) noexcept {
    if (us) {
        us_ = us_ ? *us_ + kLearning * (*us - *us_) : *us;
    }
}

ConnectionTuner::ConnectionTuner(unsigned least)
    : least_(std::max(least, 1U)),
      few_(std::max(least_, kFirst)),
      most_(std::max(least_, kMost)),
      connections_(few_),
      next_rest_(kShortestRest),
      next_recovery_(kShortestRecovery) {}

unsigned ConnectionTuner::look(const Seen& seen) noexcept {
    if (mind_clients(seen)) {
        return connections_;
    }
    if (seen.bounded || seen.bytes_per_s <= 0) {
        go_back();
        return connections_;
    }
    rate_sum_ += seen.bytes_per_s;
    if (++rate_looks_ == kRateLooks) {
        const double mean = rate_sum_ / kRateLooks;
        forget_rate();
        compare(mean);
    }
    return connections_;
}

bool ConnectionTuner::mind_clients(const Seen& seen) noexcept {
    const bool slow = reads_.is_exceeded_by(seen.read_us) || writes_.is_exceeded_by(seen.write_us);
    const bool unknown = reads_.misses(seen.read_us) || writes_.misses(seen.write_us);
    const bool fewest = connections_ == least_;
    // Where nothing can be given up any more, what is seen is what the clients have anyway.
    if (fewest || unknown || (connections_ <= few_ && !slow)) {
        reads_.learn(seen.read_us);
        writes_.learn(seen.write_us);
    }
    if (unknown && connections_ > few_) {
        // Clients that come later: a look at few connections corrects what was just learned.
        give_way(few_);
        resting_ = kShortestRest;
        return true;
    }
    if (!slow) {
        slow_looks_ = 0;
        return false;
    }
    if (!fewest && ++slow_looks_ == kSlowLooks) {
        give_way(std::max(connections_ / 2, least_));
        doubling_ = false;
        resting_ = next_recovery_;
        next_recovery_ = std::min(2 * next_recovery_, kLongestRecovery);
    }
    return true;
}

void ConnectionTuner::compare(double bytes_per_s) noexcept {
    if (proven_) {
        const double wanted = upwards_ ? kGainOfMore : kLossOfFewer;
        if (bytes_per_s < wanted * proven_->bytes_per_s) {
            go_back();
            // A step that was too long is tried as a short one, then the other direction.
            if (!std::exchange(doubling_, false)) {
                upwards_ = !upwards_;
            }
            rest();
            return;
        }
        proven_.reset();
        next_rest_ = kShortestRest;
    }
    if (resting_ > 0) {
        --resting_;
        return;
    }
    try_another(bytes_per_s);
}

void ConnectionTuner::try_another(double bytes_per_s) noexcept {
    const unsigned wanted = upwards_
                                ? std::min(connections_ + (doubling_ ? connections_ : 1), most_)
                                : std::max(connections_ - 1, least_);
    if (wanted == connections_) {
        upwards_ = !upwards_;
        doubling_ = false;
        rest();
        return;
    }
    proven_ = Proven{.connections = connections_, .bytes_per_s = bytes_per_s};
    connections_ = wanted;
}

void ConnectionTuner::give_way(unsigned connections) noexcept {
    connections_ = connections;
    proven_.reset();
    forget_rate();
    slow_looks_ = 0;
    upwards_ = true;
}

void ConnectionTuner::go_back() noexcept {
    if (proven_) {
        connections_ = proven_->connections;
        proven_.reset();
    }
    forget_rate();
}

void ConnectionTuner::rest() noexcept {
    resting_ = next_rest_;
    next_rest_ = std::min(2 * next_rest_, kLongestRest);
}

void ConnectionTuner::forget_rate() noexcept {
    rate_sum_ = 0;
    rate_looks_ = 0;
}

}  // namespace nbdm
