// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "client/connection_tuner.h"
#include "client/job_limits.h"
#include "client/source_server.h"

namespace nbdm {

// Has a mirror's number of connections tuned, as long as the limits leave it to the job.
//
// Threads: one at a time.
class AutoConnections {
  public:
    using Clock = std::chrono::steady_clock;

    // Each disk has a connection in any case. `limits` outlives it.
    AutoConnections(std::size_t disks, JobLimits& limits)
        : least_(static_cast<unsigned>(disks)), limits_(limits), tuner_(least_) {}

    // Counts that only grow.
    struct Counts {
        std::uint64_t sent_bytes = 0;
        std::uint64_t zeroed_bytes = 0;
        ClientTimes clients;  // of the sources
    };
    // Call it about twice a second.
    void look(const Counts& counts, Clock::time_point now);
    // The job does something else than copying: what was seen since the last look at the tuner is
    // of no use.
    void restart() noexcept { since_.reset(); }

  private:
    struct Moment {
        Clock::time_point time;
        Counts counts;
    };
    [[nodiscard]] ConnectionTuner::Seen seen(const Moment& now) const;

    const unsigned least_;
    JobLimits& limits_;
    ConnectionTuner tuner_;
    std::optional<Moment> since_;
};

}  // namespace nbdm
