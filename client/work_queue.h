// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "client/cancellation.h"
#include "client/pace.h"
#include "iothread/io_thread.h"
#include "iothread/range.h"

namespace nbdm {

// One thing for a worker to do.
struct Piece {
    enum class Kind {
        copy,     // read from the source, write to the target
        zero,     // make the target read as zero
        flush,    // make the target durable
        compare,  // read both
    };
    Kind kind = Kind::copy;
    Range range;
    bool target_is_zero = false;  // zeroes need not be sent there
};

// What lies between the thread that looks ahead and the workers: a bounded queue of pieces, and
// the count of those that are not finished. The first failure empties it, and nothing more is
// taken until the failure is cleared.
//
// Threads: push(), wait_*() and clear_failure() by the job's thread; the others by workers; fail()
//          by any.
class WorkQueue {
  public:
    using Clock = std::chrono::steady_clock;

    // `pace` outlives the queue: pieces that move data begin when it admits them.
    explicit WorkQueue(Pace& pace) : pace_(pace) {}

    enum class Pushed { taken, full, failed };
    // Waits up to `step` for room. `full` and `failed`: the piece was not taken.
    [[nodiscard]] Pushed push(const Piece& piece, std::chrono::milliseconds step);

    struct Popped {
        std::optional<Piece> piece;
        // Without a piece: there is one, which may begin then. Otherwise the thread is woken when
        // one comes.
        std::optional<Clock::time_point> not_before;
    };
    [[nodiscard]] Popped try_pop(IoThread& idle);
    // The thread takes no more pieces; one that it was woken for is another's.
    void leave(IoThread& idle);
    // A popped piece is finished, well or after fail().
    void finished();

    // Stops the work: pieces that were not taken are dropped. Only the first sentence stays.
    void fail(const std::string& sentence);
    // Waits until every piece is finished or dropped, in steps of at most `step`. True: all are.
    [[nodiscard]] bool wait_until_idle(std::chrono::milliseconds step);
    // The sentence of the failure, if there was one; forgets it. Call when idle.
    [[nodiscard]] std::optional<std::string> take_failure();
    [[nodiscard]] bool failed() const;

  private:
    static constexpr std::size_t kMaxQueued = 256;
    void wake_one_locked();

    Pace& pace_;

    mutable std::mutex mutex_;  // guards all below
    std::condition_variable changed_;
    std::deque<Piece> queued_;
    std::size_t unfinished_ = 0;  // queued or popped
    std::vector<IoThread*> idle_;
    std::optional<std::string> failure_;
};

}  // namespace nbdm
