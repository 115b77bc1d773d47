// SPDX-License-Identifier: Apache-2.0
#include "client/readiness.h"

#include <algorithm>

namespace nbdm {

// The limit may have been changed since.
const DowntimeForecast& Readiness::forecast() {
    forecast_.limit(limits_.pace().rate());
    return forecast_;
}

void Readiness::round_ended(const Round& round) {
    forecast_.learn(round.copied_bytes, round.copying, round.flushing);
    last_round_fits_ = fits(round.dirty_bytes);
    if (last_round_fits_) {
        unfit_since_.reset();
        outgrown_ = false;
    }
    tell_expected_downtime(round.dirty_bytes);
}

bool Readiness::fits(std::uint64_t dirty_bytes) {
    return forecast().fits(dirty_bytes, limits_.max_downtime());
}

void Readiness::tell_expected_downtime(std::uint64_t dirty_bytes) {
    const std::optional<DowntimeForecast::Downtime> expected = forecast().expected(dirty_bytes);
    status_.set_expected_downtime(expected ? std::optional(expected->count()) : std::nullopt);
}

void Readiness::look(std::uint64_t dirty_bytes, Clock::time_point now) {
    tell_expected_downtime(dirty_bytes);
    if (fits(dirty_bytes)) {
        unfit_since_.reset();
    } else if (!unfit_since_) {
        unfit_since_ = now;
    }
    outgrown_ =
        unfit_since_ && now - *unfit_since_ >= std::max(kMaxUnfitTime, limits_.max_downtime());
}

}  // namespace nbdm
