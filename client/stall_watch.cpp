// SPDX-License-Identifier: Apache-2.0
#include "client/stall_watch.h"

#include <utility>

namespace nbdm {

void StallWatch::begin(Activity activity, Clock::time_point now) noexcept {
    activity_ = activity;
    since_ = now;
}

void StallWatch::look(std::uint64_t done, Clock::time_point now) noexcept {
    if (std::exchange(done_, done) != done || activity_ == Activity::none) {
        since_ = now;
    }
    still_ = now - since_;
}

bool StallWatch::hopeless() const noexcept {
    return still_ >= (activity_ == Activity::flushing ? kFlushLimit : kStallLimit);
}

std::string StallWatch::sentence() const {
    const std::string time = std::to_string(kStallLimit.count()) + " s";
    return activity_ == Activity::flushing
               ? "the target has been flushing for more than " + time
               : "nothing was copied for " + time + ": the source or the target does not answer";
}

}  // namespace nbdm
