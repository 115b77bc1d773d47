// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

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

// The writers of all disks of a job wait for as long as this lives, and no longer than to its
// deadline: a thread of its own renews the leases, and at the deadline lets them go on, whatever
// the job is busy with.
//
// Threads: the job's.
class WriterHold {
  public:
    using Clock = std::chrono::steady_clock;

    struct Disk {
        SourceServer& server;  // outlives it
        Location source;
        std::string moved_to;
    };
    // `disks`: at least one, of one server. Returns when no write is in flight. Throws JobError or
    // Cancelled; writers then go on.
    WriterHold(const std::vector<Disk>& disks, const Cancellation& cancellation,
               std::chrono::milliseconds max_downtime);
    WriterHold(const WriterHold&) = delete;
    WriterHold& operator=(const WriterHold&) = delete;
    ~WriterHold();  // lets the writers go on, unless the disks were handed over

    // Throws GivenUp when the writers go on already.
    void check() const;

    // "cut over: downtime 12 ms".
    struct Done {
        std::string line;
        double downtime_ms = -1;  // negative: not known
    };
    // The writers never write here again. Throws GivenUp when no disk has moved, or
    // HandOverUnknown.
    [[nodiscard]] Done retire(const std::string& job);
    // The writers go on here; the targets are as the sources were. Throws GivenUp or,
    // from a server that does not answer or refuses, NoAnswer or JobError.
    [[nodiscard]] Done release();

  private:
    // The hold on one disk; released when this ends, unless it was settled.
    struct Held {
        Held(const Disk& disk, const Cancellation& cancellation, std::chrono::milliseconds lease);
        Held(const Held&) = delete;
        Held& operator=(const Held&) = delete;
        ~Held();

        const Disk disk;
        SourceServer keeper;  // of the keeper's thread
        const std::string id;
        bool settled = false;
    };

    void keep(const std::stop_token& stop);
    void stop_keeping();
    void lengthen_leases();
    void settle() noexcept;
    [[nodiscard]] double ask_to_retire(const std::string& job);
    [[nodiscard]] Done ask_what_became();

    const std::chrono::milliseconds max_downtime_;
    const std::chrono::milliseconds first_lease_;
    const std::chrono::milliseconds lease_;  // that it is renewed to
    const Clock::time_point begun_;
    const Clock::time_point deadline_;
    std::list<Held> held_;
    std::atomic<bool> lost_{false};  // a lease could not be renewed
    bool renewed_ = false;           // the keeper's, until it is joined
    std::mutex mutex_;               // of the keeper's wait; guards nothing
    std::condition_variable_any changed_;
    std::jthread keeper_;  // last: stopped and joined first
};

}  // namespace nbdm
