// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/block_map.h"
#include "client/cancellation.h"
#include "client/endpoint.h"
#include "client/side.h"
#include "client/work_counters.h"
#include "client/work_queue.h"
#include "iothread/buffer_pool.h"
#include "iothread/io_thread.h"

namespace nbdm {

// How the workers of one job do their pieces.
struct WorkerOptions {
    unsigned requests = 16;  // pieces under way at a time
    std::uint64_t request_bytes = 256 << 10;
    bool detect_zeroes = true;  // data that is zero is not sent
    WorkQueue::Takes takes = WorkQueue::Takes::all;
};

// A stretch of data that is worth being told apart from its neighbours.
struct ZeroRun {
    Range range;
    bool zero = false;
};
// How finely data is told apart: in blocks of `block_bytes`, and runs of zeroes that are shorter
// than `min_run_bytes` count as data, unless a piece is all zero.
struct ZeroGrain {
    std::size_t block_bytes = 4096;
    std::size_t min_run_bytes = 16 << 10;
};
// Splits `data`, which stands at `offset` on the disk, where runs of zeroes begin and end.
[[nodiscard]] std::vector<ZeroRun> split_zeroes(std::span<const std::byte> data,
                                                std::uint64_t offset, ZeroGrain grain);

// One connection to each side, on a thread and ring of its own; takes pieces from the queue for as
// long as it lives. A failure of a piece fails the queue, with a sentence that says what could not
// be done where; what is under way is always finished.
//
// Threads: one at a time; what it calls back for, it does on its own.
class Worker {
  public:
    struct Parts {
        const Side& source;
        const Side& target;
        WorkQueue& queue;
        WorkCounters& counters;
        BlockMap& map;
        const Cancellation& cancellation;
        // A stretch in which the two differ; called on the worker's thread.
        std::function<void(Range)> differs;
        // A stretch that was being written or zeroed when the target's connection was lost: its
        // server may do it yet. On the worker's thread.
        std::function<void(Range)> unanswered;
    };

    // `first` holds connections that stand already; what is missing there is opened.
    Worker(unsigned number, Parts parts, OpenedHandles first, WorkerOptions options);
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    ~Worker();  // it has ended, or the queue is idle

    // Returns when both connections stand; throws what went wrong with them. Once.
    void wait_until_open() { opening_.get(); }
    // Both connections stand, and it takes pieces.
    [[nodiscard]] bool works() const noexcept {
        return open_.load(std::memory_order_acquire) && !ended() && !retiring();
    }

    // Whose connection is lost, if one is: what it is given fails.
    [[nodiscard]] const Side* lost() const noexcept {
        return lost_.load(std::memory_order_acquire);
    }

    // What is under way need not succeed any more, but ends soon. The worker is of no use after it.
    void abandon() noexcept;
    // Takes no more pieces, and ends when those that it has are done.
    void retire() noexcept;
    [[nodiscard]] bool retiring() const noexcept {
        return retiring_.load(std::memory_order_acquire);
    }
    // It may be destroyed without waiting for anything.
    [[nodiscard]] bool ended() const noexcept { return ended_.load(std::memory_order_acquire); }

  private:
    class Slot;

    void run();
    void take_pieces(BufferPool& pool);
    [[nodiscard]] std::chrono::milliseconds time_to_next() const;
    void serve(Ring& ring, Endpoint& source, Endpoint& target);
    void begin(Slot& slot, const Piece& piece);
    void step(Slot& slot);
    void data_read(Slot& slot);
    void next_run(Slot& slot);
    void compare(Slot& slot);
    void differs(Slot& slot, Range block);
    void piece_done(Slot& slot);
    void piece_failed(Slot& slot, const char* verb, const std::string& where);

    const Parts parts_;
    const WorkerOptions options_;
    const ZeroGrain grain_;
    OpenedHandles first_;  // of the thread once it runs
    Cancellation opening_cancelled_{&parts_.cancellation};
    std::promise<void> opened_;
    std::future<void> opening_ = opened_.get_future();
    std::atomic<bool> open_{false};
    std::atomic<const Side*> lost_{nullptr};
    std::atomic<bool> abandoned_{false};
    std::atomic<bool> retiring_{false};
    std::atomic<bool> ended_{false};

    // Of the thread.
    Endpoint* source_ = nullptr;
    Endpoint* target_ = nullptr;
    std::list<Slot> slots_;
    std::vector<Slot*> free_;
    std::deque<Slot*> ready_;  // whose request has completed
    // When the piece at the head of the queue may begin, if it may not yet.
    std::optional<std::chrono::steady_clock::time_point> not_before_;

    IoThread thread_;  // last: joined before what it uses is gone
};

}  // namespace nbdm
