// SPDX-License-Identifier: Apache-2.0
#include "server/patience.h"

#include <algorithm>

namespace nbdm {

void Patience::excuse(Clock::time_point since, Clock::time_point now) noexcept {
    constexpr std::chrono::seconds kWorthMentioning{1};
    if (now - since >= kWorthMentioning) {
        received_at_ = now;
        progress_at_ = now;
        taken_at_ = now;
    }
}

void Patience::look(Seen seen, Clock::time_point now) noexcept {
    if (!seen.others_wait) {
        wanted_since_.reset();
    } else if (!wanted_since_) {
        wanted_since_ = now;
    }
    if (!seen.in_request || seen.received_bytes - progress_bytes_ >= kProgressBytes) {
        progress_at_ = now;
        progress_bytes_ = seen.received_bytes;
    }
    if (!seen.answers_waiting) {
        taken_at_ = now;
        untaken_bytes_ = kNone;
    } else if (seen.untaken_bytes + kProgressBytes <= untaken_bytes_) {
        taken_at_ = now;
        untaken_bytes_ = seen.untaken_bytes;
    }
    deadline_.reset();
    const auto expect = [&](Clock::time_point by, DisconnectReason why) {
        if (!deadline_ || by < *deadline_) {
            deadline_ = by;
            reason_ = why;
        }
    };
    const bool expected = seen.in_request && seen.receiving;
    if (expected) {
        expect(received_at_ + request_timeout_, DisconnectReason::request_time_out);
    }
    if (expected && wanted_since_) {
        expect(std::max(progress_at_, *wanted_since_) + kShortageLimit,
               DisconnectReason::holds_memory);
    }
    if (seen.answers_waiting && wanted_since_) {
        expect(std::max(taken_at_, *wanted_since_) + kShortageLimit,
               DisconnectReason::answers_not_taken);
    }
}

}  // namespace nbdm
