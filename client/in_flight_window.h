// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace nbdm {

// How many pieces a job has under way, and over how many connections: as few as reach all of the
// throughput. What is under way beyond that waits its turn somewhere, is out of the CPU's cache by
// then, and takes processors from the source's guests.
//
// It tries twice as many and half as many, in short slices that alternate with what it had, so that
// a machine that gets slower meanwhile does not decide, and keeps what is worth it.
//
// Threads: one at a time.
class InFlightWindow {
  public:
    using Clock = std::chrono::steady_clock;

    // Where it begins unless it is told, and what it is at least. Two processors have enough to do
    // with that, and each connection something to send while one piece is read and another
    // answered: more were slower where neither side waits for its storage (docs/performance.md).
    static constexpr unsigned kFewWorkers = 2;
    static constexpr unsigned kFewPerWorker = 4;
    // What a slice lasts at least.
    static constexpr std::chrono::milliseconds kSlice{20};

    // Numbers from 1.
    struct Limits {
        unsigned workers = 4;
        unsigned per_worker = 16;
        // It begins with so many over each. Nothing: with few, over few.
        std::optional<unsigned> first_per_worker = {};
    };
    explicit InFlightWindow(Limits limits);

    // So many pieces may be under way, so many of them over one connection.
    [[nodiscard]] unsigned pieces() const noexcept { return in_other_ ? other_pieces_ : pieces_; }
    [[nodiscard]] unsigned per_worker() const noexcept;
    [[nodiscard]] unsigned most_per_worker() const noexcept { return limits_.per_worker; }
    // So that several connections are not used where one has room.
    [[nodiscard]] unsigned workers() const noexcept;

    // Those that are added are used, until it is seen that fewer are as fast; those that go take
    // their share with them.
    void set_workers(unsigned workers) noexcept;
    // One is done, which has moved so much data.
    void finished(std::uint64_t bytes, Clock::time_point now) noexcept;
    // There is nothing more to do now, or the window does not decide: the slice under way says
    // nothing.
    void interrupted() noexcept;
    // The job's limit holds it back, not the window.
    void limited() noexcept;

  private:
    struct Rate {
        std::uint64_t bytes = 0;
        std::chrono::duration<double> time{0};
        [[nodiscard]] double per_s() const { return static_cast<double>(bytes) / time.count(); }
    };

    [[nodiscard]] unsigned most() const noexcept { return limits_.workers * limits_.per_worker; }
    [[nodiscard]] unsigned least() const noexcept;
    [[nodiscard]] unsigned next(bool upwards) const noexcept;
    void begin_trial() noexcept;
    void drop_trial() noexcept { trying_ = in_other_ = false; }
    void begin_slice() noexcept;
    void end_slice(Clock::time_point now) noexcept;
    void end_trial(bool keep, Clock::time_point now) noexcept;

    Limits limits_;
    unsigned pieces_;

    Clock::time_point next_trial_;
    Clock::duration rest_;  // before the one after that
    bool upwards_ = true;

    // Of the trial under way.
    bool trying_ = false;
    unsigned other_pieces_ = 0;
    Rate usual_;
    Rate other_;
    unsigned pairs_ = 0;  // of slices

    // Of the slice under way.
    bool in_other_ = false;
    unsigned unsettled_ = 0;  // pieces, before it counts
    unsigned finished_ = 0;
    std::uint64_t bytes_ = 0;
    Clock::time_point begun_;
};

}  // namespace nbdm
