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

    // A freeze was asked for at that time; `dirtiness` has what it found, which is to be copied
    // now.
    void explain(Scout& dirtiness, Clock::time_point frozen_at);
    // What differed in these ranges, given by their offsets, was copied again and is durable: looks
    // at them once more. Throws what Engine::compare does.
    void check_again(Engine& engine, const std::vector<Range>& ranges,
                     const std::function<void()>& tick);

    struct Source {  // both outlive the call
        Scout& dirtiness;
        Scout& allocation;
    };
    enum class Writers { write, wait };
    // A round has copied that, and flushed it; nothing of it was acknowledged yet, unless
    // everything is still to be checked. Checks it, and what is unchecked. Throws
    // VerificationFailed, or what Engine::compare does.
    void check(Engine& engine, Source source, TargetZeroes& target_zeroes, Writers writers,
               const std::function<void()>& tick);
    // What was copied before and is still to be checked: everything at first, and what lies behind
    // more differences than can be kept in mind.
    [[nodiscard]] std::uint64_t unchecked_bytes() const noexcept {
        return size_bytes_ - unchecked_from_;
    }
    [[nodiscard]] bool checks_everything() const noexcept {
        return unchecked_from_ == 0 && suspects_.empty();
    }

  private:
    struct Suspect {
        Range range;
        Clock::time_point since;  // when it had been read
    };
    void drop_dirty(Scout& dirtiness);
    void suspect(const Differences::Found& found);
    [[nodiscard]] bool is_unexplained(const Suspect& suspect, Writers writers) const;

    const std::uint64_t size_bytes_;
    std::uint64_t unchecked_from_ = 0;
    std::vector<Suspect> suspects_;  // by offset
    Clock::time_point frozen_at_;    // the last time
};

}  // namespace nbdm
