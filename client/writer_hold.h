// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "client/cancellation.h"
#include "client/location.h"
#include "client/source_server.h"

namespace nbdm {

// A cutover is given up; the job goes on.
class GivenUp : public JobError {
  public:
    using JobError::JobError;
};

// Nobody can say whether the disk was handed over; the job ends and claims neither.
class HandOverUnknown : public JobError {
  public:
    using JobError::JobError;
};

// The source's writers wait for as long as this lives, and no longer than to its deadline: a thread
// of its own renews the lease, and at the deadline lets them go on, whatever the job is busy with.
//
// Threads: the job's.
class WriterHold {
  public:
    using Clock = std::chrono::steady_clock;

    // Returns when no write is in flight. Throws JobError or Cancelled; writers then go on.
    WriterHold(SourceServer& server, const Location& source, const Cancellation& cancellation,
               std::chrono::milliseconds max_downtime);
    WriterHold(const WriterHold&) = delete;
    WriterHold& operator=(const WriterHold&) = delete;
    ~WriterHold();  // lets the writers go on, unless the disk was handed over

    // Throws GivenUp when the writers go on already.
    void check() const;

    // "cut over: downtime 12 ms".
    struct Done {
        std::string line;
        double downtime_ms = -1;  // negative: not known
    };
    // The writers never write here again. Throws GivenUp when the disk has not moved, or
    // HandOverUnknown.
    [[nodiscard]] Done retire(const std::string& moved_to, const std::string& job);
    // The writers go on here; the target is as the source was. Throws GivenUp.
    [[nodiscard]] Done release();

  private:
    void keep(const std::stop_token& stop);
    void stop_keeping();
    [[nodiscard]] Done ask_what_became();

    SourceServer& server_;
    const std::string export_name_;
    const std::chrono::milliseconds max_downtime_;
    const std::chrono::milliseconds lease_;
    const Clock::time_point begun_;
    const Clock::time_point deadline_;
    SourceServer keeper_server_;  // of the keeper's thread
    const std::string id_;
    std::atomic<bool> lost_{false};  // the lease could not be renewed
    bool ended_ = false;
    std::mutex mutex_;  // of the keeper's wait; guards nothing
    std::condition_variable_any changed_;
    std::jthread keeper_;  // last: stopped and joined first
};

}  // namespace nbdm
