// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "client/cancellation.h"
#include "client/in_flight_window.h"
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
        update,   // read both, write what differs to the target
        alike,    // nothing: both have the same there
    };
    Kind kind = Kind::copy;
    // Of a flush: what counts as durable once it is done.
    Range range;
    bool target_is_zero = false;  // zeroes need not be sent there
};

// Why the work was stopped.
struct WorkFailure {
    std::string sentence;
    bool connection_lost = false;  // it may succeed over another one
};

// What lies between the thread that looks ahead and the workers: a bounded queue of pieces, and
// the count of those that are not finished. The first failure empties it, and nothing more is
// taken until the failure is cleared.
//
// It also decides who works: no more pieces are under way than the window allows, and over no more
// connections than that takes. While writers are held, every worker takes all it can.
//
// The pieces of a pass come in ascending order. As they are finished, the queue adds flushes of its
// own, so that at any time only little of what was copied is not known to be durable.
//
// Threads: try_pop() and finished() by workers; leave() by a worker, or whoever destroys it; fail()
//          by any; the others by one that looks ahead, one at a time.
class WorkQueue {
  public:
    using Clock = std::chrono::steady_clock;

    // `pace` outlives the queue: pieces that move data begin when it admits them.
    WorkQueue(Pace& pace, InFlightWindow::Limits limits) : pace_(pace), window_(limits) {}

    // So many take pieces now.
    void use_workers(unsigned workers);

    // The next piece lies anywhere. Nothing is under way. `unit_bytes`: pieces are not cut smaller,
    // nor elsewhere; a power of two.
    void begin_pass(bool with_checkpoints, std::uint64_t unit_bytes = 4096);
    // All that the pass had to do before this offset is done, and durable.
    [[nodiscard]] std::uint64_t durable_to() const;

    enum class Pushed { taken, full, failed };
    // Waits up to `step` for room. `full` and `failed`: the piece was not taken.
    [[nodiscard]] Pushed push(const Piece& piece, std::chrono::milliseconds step);

    struct Popped {
        std::optional<Piece> piece;
        // Without a piece: there is one, which may begin then. Otherwise the thread is woken when
        // one comes.
        std::optional<Clock::time_point> not_before;
    };
    // A flush is for the connection that was there before the others: one that was made since might
    // be to a server that was started again, and has nothing to make durable of what it never knew.
    enum class Takes { all, no_flush };
    // To be called until it gives none. A piece is cut to what the bandwidth limit admits as one
    // request, so that a limit that has just come holds too.
    [[nodiscard]] Popped try_pop(IoThread& worker, Takes takes = Takes::all);
    // The thread takes no more pieces; one that it was woken for, or has room for, is another's.
    void leave(IoThread& worker);
    // A piece that `worker` has popped is finished, well or after fail().
    void finished(IoThread& worker, const Piece& piece);

    // Stops the work: pieces that were not taken are dropped. Only the first failure stays.
    void fail(WorkFailure failure);
    // Waits until every piece is finished or dropped, in steps of at most `step`. True: all are.
    [[nodiscard]] bool wait_until_idle(std::chrono::milliseconds step);
    // The failure, if there was one; forgets it. Call when idle.
    [[nodiscard]] std::optional<WorkFailure> take_failure();
    [[nodiscard]] bool failed() const;

  private:
    static constexpr std::size_t kMaxQueued = 256;
    // So much is finished at least, and so long is a flush past, before the next one begins: as
    // often as a third of the time is spent on flushes.
    static constexpr std::uint64_t kCheckpointBytes = std::uint64_t{8} << 20;
    static constexpr int kFlushSpacing = 2;

    [[nodiscard]] bool has_share_locked(IoThread& worker) const {
        return shares_.contains(&worker);
    }
    [[nodiscard]] bool has_room_locked(IoThread& worker) const;
    // But what those have that leave.
    [[nodiscard]] unsigned under_way_locked() const;
    void wake_one_locked();
    [[nodiscard]] Piece next_piece_locked(std::uint64_t largest) const;
    // Who has nothing under way gives its place up with that.
    void give_up_share_locked(IoThread& worker);
    void push_flush_locked(const Piece& flush);
    [[nodiscard]] std::uint64_t finished_to_locked() const;
    void add_checkpoint_locked(Clock::time_point now);

    Pace& pace_;

    mutable std::mutex mutex_;  // guards all below
    std::condition_variable changed_;
    std::deque<Piece> queued_;  // but flushes
    std::deque<Piece> flushes_;
    IoThread* flusher_ = nullptr;  // who takes them
    std::size_t unfinished_ = 0;   // queued or popped
    std::vector<IoThread*> idle_;  // who would take another piece
    InFlightWindow window_;
    // Of those that have pieces, but flushes, under way, or had just now and have not asked for
    // more yet.
    struct Share {
        unsigned pieces = 0;
        bool leaving = false;
    };
    std::map<IoThread*, Share> shares_;
    std::optional<WorkFailure> failure_;

    // Of the pass.
    bool with_checkpoints_ = false;
    std::uint64_t unit_bytes_ = 4096;
    std::set<std::uint64_t> begun_;  // where the popped pieces begin that are not finished
    std::uint64_t pushed_to_ = 0;
    std::uint64_t covered_to_ = 0;  // by the last flush that was begun
    std::uint64_t durable_to_ = 0;
    bool flushing_ = false;
    Clock::time_point flush_begun_;
    Clock::time_point next_flush_;
};

}  // namespace nbdm
