// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "client/engine.h"
#include "client/scout.h"
#include "iothread/range.h"

namespace nbdm {

// The target is not what the source is, although it should be.
class VerificationFailed : public JobError {
  public:
    using JobError::JobError;
};

// Proves that what a mirror's rounds have copied is at the target, while the source is written to:
// what was copied is read again from both. Where they differ a writer may have been faster; then
// the tracker says so once that write is complete, and the range is copied and read once more. What
// no writer has explained is read again when writers wait, or when no write can take that long.
//
// Threads: one at a time.
class Verification {
  public:
    using Clock = std::chrono::steady_clock;
    // A write that is under way for longer is taken for none.
    static constexpr std::chrono::seconds kLongestWrite{60};

    explicit Verification(std::uint64_t size_bytes) : size_bytes_(size_bytes) {}

    // A freeze was made; `dirtiness` has what it found, which is to be copied now.
    void explain(Scout& dirtiness);

    enum class What { dirty, everything };  // is read again
    enum class Writers { write, wait };
    // A round has copied that, and flushed it. Throws VerificationFailed, or what Engine::compare
    // does. False: writers were faster at more places than can be kept in mind, and everything is
    // to be checked once more.
    [[nodiscard]] bool check(Engine& engine, Scout& dirtiness, TargetZeroes& target_zeroes,
                             What what, Writers writers, const std::function<void()>& tick);

  private:
    struct Suspect {
        Range range;
        Clock::time_point since;  // when it had been read
    };
    [[nodiscard]] bool is_unexplained(const Suspect& suspect, Writers writers) const;
    [[nodiscard]] std::vector<Extent> extents_of(std::vector<Suspect> suspects) const;

    const std::uint64_t size_bytes_;
    std::vector<Suspect> suspects_;
    Clock::time_point explained_;  // the last time
};

}  // namespace nbdm
