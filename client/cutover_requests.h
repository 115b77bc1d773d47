// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "client/cancellation.h"

namespace nbdm {

// What became of a cutover that was asked for.
struct CutoverOutcome {
    std::uint64_t ticket = 0;  // of the last request that this answers
    bool done = false;
    std::string line;  // "cut over: downtime 12 ms", or why it was given up
};

// Who wants a job to cut over, and what became of it.
//
// Threads: any; answer() and wait() by the job's.
class CutoverRequests {
  public:
    // `outcome_fd` (an eventfd, not owned) is written when outcome() has something new.
    explicit CutoverRequests(int outcome_fd) : outcome_fd_(outcome_fd) {}

    // As soon as the job is ready. Returns the request's ticket, by which its outcome is known.
    std::uint64_t add();
    // Takes all of them back; without effect once writers are held.
    void withdraw();
    [[nodiscard]] bool pending() const;
    [[nodiscard]] std::optional<CutoverOutcome> outcome() const;

    // Answers all that were added so far.
    void answer(bool done, const std::string& line);
    // Until one is pending, or `limit` has passed. Throws Cancelled.
    void wait(std::chrono::milliseconds limit, const Cancellation& cancellation);

  private:
    const int outcome_fd_;
    mutable std::mutex mutex_;  // guards all below
    std::condition_variable changed_;
    std::uint64_t requested_ = 0;  // the last ticket
    std::uint64_t answered_ = 0;   // the last one with an outcome
    std::optional<CutoverOutcome> outcome_;
};

}  // namespace nbdm
