// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

#include "client/job_limits.h"

namespace nbdm {

// A job's connections, shared by its disks: each has as many as the others, but for the rest, and
// at least one.
//
// Threads: any. `limits` outlives it.
class ConnectionShares {
  public:
    ConnectionShares(std::size_t disks, const JobLimits& limits)
        : limits_(limits), copies_(disks, false) {}

    // The disk copies as long as this lives.
    class Copying {
      public:
        Copying(ConnectionShares& shares, std::size_t disk) : shares_(shares), disk_(disk) {
            shares_.set(disk_, true);
        }
        Copying(const Copying&) = delete;
        Copying& operator=(const Copying&) = delete;
        ~Copying() { shares_.set(disk_, false); }

      private:
        ConnectionShares& shares_;
        const std::size_t disk_;
    };

    // When each disk of the job has its share.
    [[nodiscard]] unsigned among_all(std::size_t disk) const;
    // When only those have one that copy, which `disk` does.
    [[nodiscard]] unsigned among_copying(std::size_t disk) const;

  private:
    [[nodiscard]] unsigned share(std::size_t rank, std::size_t sharers) const;
    void set(std::size_t disk, bool copies);

    const JobLimits& limits_;
    mutable std::mutex mutex_;  // guards copies_
    std::vector<bool> copies_;
};

}  // namespace nbdm
