// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <vector>

#include "client/cancellation.h"
#include "client/differences.h"
#include "client/digest_comparison.h"
#include "client/disk_status.h"
#include "client/pace.h"
#include "client/pass.h"
#include "client/side.h"
#include "client/work_queue.h"
#include "client/worker.h"

namespace nbdm {

struct EngineOptions {
    unsigned connections = 4;
    unsigned requests = 16;  // per connection, at most
    // It begins with so many over each. Nothing: with few, over few.
    std::optional<unsigned> first_per_connection = {};
    std::uint64_t request_bytes = 256 << 10;
    bool zeroes_as_data = false;
};

// Throws JobError when `target` cannot hold `source`, or be written; nothing has been changed by
// then.
void check_sides(const Side& source, const Side& target);

// Warns when the target's storage may become full, as far as both say how much they have.
void warn_of_full_target(const Side& source, const Side& target);

// The options as both sides can take them: one connection where one of them does not promise
// multi-conn, requests of a power of two that both accept.
[[nodiscard]] EngineOptions fitting_options(EngineOptions options, const EndpointTraits& source,
                                            const EndpointTraits& target);

// What copies between two sides: the workers with their connections, and the queue before them.
// Several passes may be made with it.
//
// Threads: one at a time. The sides, the status, the pace and the cancellation outlive it.
class Engine {
  public:
    // Opens all connections. Throws what goes wrong with them.
    // A side that promises no multi-conn gives its only connection to the worker: its extents are
    // asked for before.
    Engine(Side& source, Side& target, EngineOptions options, DiskStatus& status, Pace& pace,
           const Cancellation& cancellation);
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    ~Engine() = default;

    struct Sweep {
        bool only_dirty = false;   // by what the source's scout says
        bool compare = false;      // only what differs is written
        bool checkpoints = false;  // durable_to() grows meanwhile
    };
    // One pass. `tick` is called now and then meanwhile (may be empty). Fails as Pass::run does.
    void copy(Sweep sweep, Scout& source, TargetZeroes& target_zeroes,
              const std::function<void()>& tick);
    // Of the pass under way: all that it had to do before this offset is done, and durable.
    [[nodiscard]] std::uint64_t durable_to() const { return queue_.durable_to(); }
    // What was copied is durable at the target when it returns. Fails as Pass::flush does.
    void flush(const std::function<void()>& tick);
    // Adds or ends workers, without waiting for them, where both sides allow several, and replaces
    // those whose connection was lost while nothing went over it; call it now and then. One that
    // cannot connect is said in the log, and tried again with the next change.
    void use_connections(unsigned connections);
    // Where the two differ. `tick` as with copy().
    [[nodiscard]] Differences::Found compare(Sweep sweep, Scout& source,
                                             TargetZeroes& target_zeroes,
                                             const std::function<void()>& tick);
    // The name of a side to which a connection is lost, unless that is one that is replaced beside
    // the others: what comes next might do without it, or fail in the middle.
    [[nodiscard]] std::optional<std::string> lost_connection();
    // What was asked of the target over connections that were lost, and not answered: it may be
    // done yet. Where there is some, these connections are not to be used any more.
    [[nodiscard]] std::vector<Range> unanswered();

  private:
    void note_difference(Range range);
    void note_unanswered(Range range);
    void add_worker(OpenedHandles first);
    // But the oldest.
    void retire_lost();
    // What digests show to be alike is left out.
    void run_comparing(Pass& pass, Scout& source, TargetZeroes& target_zeroes,
                       const std::function<void()>& tick);
    [[nodiscard]] Pass make_pass(Pass::Options options, const std::function<void()>& tick);

    const Side& source_;
    const Side& target_;
    const EngineOptions options_;
    DiskStatus& status_;
    const Cancellation& cancellation_;
    WorkQueue queue_;
    unsigned wanted_;        // connections
    unsigned next_number_;   // of a worker
    bool has_lost_ = false;  // workers that were not replaced yet
    std::chrono::steady_clock::time_point next_replacement_;
    std::mutex ranges_mutex_;  // guards the two below
    Differences differences_;
    std::vector<Range> unanswered_;
    std::list<Worker> workers_;  // last: ends before what it uses
};

}  // namespace nbdm
