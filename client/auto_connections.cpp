// SPDX-License-Identifier: Apache-2.0
#include "client/auto_connections.h"

namespace nbdm {

namespace {

// Fewer requests have a mean by chance.
constexpr std::uint64_t kMinRequests = 20;
// Nearer to the bandwidth limit, that is what holds the job back.
constexpr double kNearLimit = 0.9;

std::optional<double> mean_us(const ClientTimes::Kind& before, const ClientTimes::Kind& now) {
    // A server that was started anew has counted from zero.
    if (now.requests < before.requests + kMinRequests || now.total_us < before.total_us) {
        return std::nullopt;
    }
    return static_cast<double>(now.total_us - before.total_us) /
           static_cast<double>(now.requests - before.requests);
}

}  // namespace

void AutoConnections::look(const Counts& counts, Clock::time_point now) {
    if (!limits_.connections_are_auto()) {
        tuner_ = ConnectionTuner(least_);
        restart();
        return;
    }
    if (limits_.paused() != Paused::no) {
        restart();
        return;
    }
    const Moment moment{.time = now, .counts = counts};
    if (!since_) {
        since_ = moment;
    } else if (now - since_->time >= ConnectionTuner::kInterval) {
        limits_.tune_connections(tuner_.look(seen(moment)));
        since_ = moment;
    }
}

ConnectionTuner::Seen AutoConnections::seen(const Moment& now) const {
    const Counts& from = since_->counts;
    const Counts& to = now.counts;
    const double seconds = std::chrono::duration<double>(now.time - since_->time).count();
    const double sent = static_cast<double>(to.sent_bytes - from.sent_bytes) / seconds;
    const double zeroed = static_cast<double>(to.zeroed_bytes - from.zeroed_bytes) / seconds;
    const std::optional<std::uint64_t> limit = limits_.pace().rate();
    ConnectionTuner::Seen seen{
        .bytes_per_s = sent,
        .bounded = limit && sent + zeroed >= kNearLimit * static_cast<double>(*limit),
        .read_us = mean_us(from.clients.reads, to.clients.reads),
        .write_us = {}};
    // A throttle is the longest part of the writes that it delays.
    if (!from.clients.throttled && !to.clients.throttled) {
        seen.write_us = mean_us(from.clients.writes, to.clients.writes);
    }
    return seen;
}

}  // namespace nbdm
