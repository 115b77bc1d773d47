// SPDX-License-Identifier: Apache-2.0
#include "client/downtime_forecast.h"

#include <algorithm>

namespace nbdm {

namespace {

// A round shorter than this says nothing of the copy rate.
constexpr std::uint64_t kMinBytesForRate = 1 << 20;

}  // namespace

void DowntimeForecast::learn(std::uint64_t copied_bytes, Clock::duration copying,
                             Clock::duration flushing) noexcept {
    flushing_ = flushing;
    if (copied_bytes >= kMinBytesForRate) {
        const std::chrono::duration<double> time = copying;
        measured_bytes_per_s_ = static_cast<double>(copied_bytes) / time.count();
    }
}

double DowntimeForecast::copy_bytes_per_s() const noexcept {
    return limit_bytes_per_s_
               ? std::min(measured_bytes_per_s_, static_cast<double>(*limit_bytes_per_s_))
               : measured_bytes_per_s_;
}

std::optional<DowntimeForecast::Downtime> DowntimeForecast::expected(
    std::uint64_t dirty_bytes) const noexcept {
    if (dirty_bytes == 0) {
        return flushing_;
    }
    if (copy_bytes_per_s() <= 0) {
        return std::nullopt;
    }
    const std::chrono::duration<double> copying(static_cast<double>(dirty_bytes) /
                                                copy_bytes_per_s());
    return Downtime(copying) + Downtime(flushing_);
}

bool DowntimeForecast::fits(std::uint64_t dirty_bytes, Downtime allowed) const noexcept {
    if (dirty_bytes == 0) {
        return true;
    }
    const std::optional<Downtime> downtime = expected(dirty_bytes);
    return downtime ? *downtime <= allowed : dirty_bytes < kMinBytesForRate;
}

}  // namespace nbdm
