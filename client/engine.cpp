// SPDX-License-Identifier: Apache-2.0
#include "client/engine.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "control/log.h"
#include "control/size.h"

namespace nbdm {

namespace {

constexpr std::chrono::seconds kReplacementInterval{10};

}  // namespace

void check_sides(const Side& source, const Side& target) {
    const std::uint64_t from = source.traits().size_bytes;
    const std::uint64_t to = target.traits().size_bytes;
    if (target.traits().read_only) {
        throw JobError("target " + target.name() + " is read-only");
    }
    if (to > from && !is_aligned(from, target.traits().alignment)) {
        throw JobError("target " + target.name() + " takes blocks of " +
                       std::to_string(target.traits().alignment) +
                       " bytes, and is larger than the source, whose " + std::to_string(from) +
                       " bytes are no multiple of that");
    }
    if (to < from) {
        throw JobError("target " + target.name() + " is too small: it has " + std::to_string(to) +
                       " bytes (" + format_size(static_cast<double>(to)) + "), the source has " +
                       std::to_string(from) + " (" + format_size(static_cast<double>(from)) + ")");
    }
}

void warn_of_full_target(const Side& source, const Side& target) {
    // Not all that is allocated need be data; and what neither says, nobody knows.
    const auto needed = source.space().allocated_bytes;
    const auto room = target.space().room_bytes;
    if (needed && room && *needed > *room) {
        log_warning("target " + target.name() + " has room for " +
                    format_size(static_cast<double>(*room)) + ", and of source " + source.name() +
                    " up to " + format_size(static_cast<double>(*needed)) +
                    " is data: the target may become full");
    }
}

EngineOptions fitting_options(EngineOptions options, const EndpointTraits& source,
                              const EndpointTraits& target) {
    // Without multi-conn a flush on one connection says nothing of the others' writes.
    if (!source.can_multi_conn || !target.can_multi_conn) {
        options.connections = 1;
    }
    const std::uint64_t most = std::min(source.max_payload_bytes, target.max_payload_bytes);
    const std::uint64_t least = std::max(source.alignment, target.alignment);
    options.request_bytes =
        std::max(std::bit_floor(std::min(options.request_bytes, most)), std::bit_ceil(least));
    return options;
}

Engine::Engine(Side& source, Side& target, EngineOptions options, DiskStatus& status, Pace& pace,
               const Cancellation& cancellation)
    : source_(source),
      target_(target),
      options_(fitting_options(options, source.traits(), target.traits())),
      status_(status),
      cancellation_(cancellation),
      queue_(pace, {.workers = options_.connections,
                    .per_worker = options_.requests,
                    .first_per_worker = options_.first_per_connection}),
      wanted_(options_.connections),
      next_number_(0) {
    for (unsigned number = 0; number < wanted_; ++number) {
        add_worker({.source = source.take_handle(), .target = target.take_handle()});
    }
    for (Worker& worker : workers_) {
        worker.wait_until_open();
    }
    status_.set_connections(wanted_);
}

void Engine::add_worker(OpenedHandles first) {
    using Takes = WorkQueue::Takes;
    // The oldest stays as long as the engine does.
    const Takes takes = workers_.empty() ? Takes::all : Takes::no_flush;
    workers_.emplace_back(
        next_number_++,
        Worker::Parts{.source = source_,
                      .target = target_,
                      .queue = queue_,
                      .counters = status_.counters,
                      .map = status_.map,
                      .cancellation = cancellation_,
                      .differs = [this](Range range) { note_difference(range); },
                      .unanswered = [this](Range range) { note_unanswered(range); }},
        std::move(first),
        WorkerOptions{.requests = options_.requests,
                      .request_bytes = options_.request_bytes,
                      .detect_zeroes = !options_.zeroes_as_data,
                      .takes = takes});
}

void Engine::use_connections(unsigned connections) {
    connections = source_.traits().can_multi_conn && target_.traits().can_multi_conn
                      ? std::max(connections, 1U)
                      : 1;
    retire_lost();
    // Not as fast as a server ends them.
    const auto now = std::chrono::steady_clock::now();
    const bool replaces = has_lost_ && now >= next_replacement_;
    if (replaces) {
        has_lost_ = false;
        next_replacement_ = now + kReplacementInterval;
    }
    if (connections != std::exchange(wanted_, connections) || replaces) {
        const auto retiring = static_cast<unsigned>(std::count_if(
            workers_.begin(), workers_.end(), [](const Worker& each) { return each.retiring(); }));
        unsigned staying = static_cast<unsigned>(workers_.size()) - retiring;
        for (; staying < connections; ++staying) {
            add_worker({});
        }
        for (auto each = workers_.rbegin(); each != workers_.rend() && staying > connections;
             ++each) {
            if (!each->retiring()) {
                each->retire();
                --staying;
            }
        }
    }
    for (auto each = workers_.begin(); each != workers_.end();) {
        if (!each->ended()) {
            ++each;
            continue;
        }
        if (!each->retiring()) {
            try {
                each->wait_until_open();
            } catch (const std::exception& error) {
                log_warning(std::string("cannot use another connection: ") + error.what());
            }
        }
        each = workers_.erase(each);
    }
    const auto works = [](const Worker& each) { return each.works(); };
    const auto working = std::count_if(workers_.begin(), workers_.end(), works);
    queue_.use_workers(std::max(static_cast<unsigned>(working), 1U));
    status_.set_connections(static_cast<unsigned>(workers_.size()));
}

Pass Engine::make_pass(Pass::Options options, const std::function<void()>& tick) {
    options.request_bytes = options_.request_bytes;
    options.zeroes_as_data = options_.zeroes_as_data;
    return Pass({.source = source_,
                 .target = target_,
                 .queue = queue_,
                 .counters = status_.counters,
                 .map = status_.map,
                 .cancellation = cancellation_,
                 .tick = tick,
                 .abandon =
                     [this] {
                         for (Worker& worker : workers_) {
                             worker.abandon();
                         }
                     }},
                options);
}

void Engine::copy(Sweep sweep, Scout& source, TargetZeroes& target_zeroes,
                  const std::function<void()>& tick) {
    status_.begin_pass();
    Pass pass = make_pass({.only_dirty = sweep.only_dirty,
                           .with_data = sweep.compare ? Piece::Kind::update : Piece::Kind::copy,
                           .checkpoints = sweep.checkpoints},
                          tick);
    if (sweep.compare) {
        run_comparing(pass, source, target_zeroes, tick);
    } else {
        pass.run(source, target_zeroes);
    }
}

// The connections for digests are there for a pass only: others may want the places.
void Engine::run_comparing(Pass& pass, Scout& source, TargetZeroes& target_zeroes,
                           const std::function<void()>& tick) {
    std::unique_ptr<DigestComparison> digests;
    const auto open = [&] {
        digests = DigestComparison::open(source_, target_, wanted_, cancellation_);
        return digests.get();
    };
    const auto look_around = [&] {
        if (cancellation_.requested()) {
            throw Cancelled();
        }
        if (tick) {
            tick();
        }
    };
    ComparingScout comparing(source, open, look_around);
    pass.run(comparing, target_zeroes);
}

void Engine::flush(const std::function<void()>& tick) {
    make_pass({}, tick).flush();
}

Differences::Found Engine::compare(Sweep sweep, Scout& source, TargetZeroes& target_zeroes,
                                   const std::function<void()>& tick) {
    {
        // What one that failed has left.
        const std::lock_guard lock(ranges_mutex_);
        differences_.clear();
    }
    Pass pass =
        make_pass({.only_dirty = sweep.only_dirty, .with_data = Piece::Kind::compare}, tick);
    run_comparing(pass, source, target_zeroes, tick);
    const std::lock_guard lock(ranges_mutex_);
    return differences_.take();
}

void Engine::note_difference(Range range) {
    const std::lock_guard lock(ranges_mutex_);
    differences_.add(range);
}

void Engine::note_unanswered(Range range) {
    const std::lock_guard lock(ranges_mutex_);
    unanswered_.push_back(range);
}

// Whatever ends a server ends the oldest connection, too: another one that had nothing to do is no
// reason to begin anew.
std::optional<std::string> Engine::lost_connection() {
    if (!unanswered().empty()) {
        return target_.name();
    }
    const Side* lost = workers_.front().lost();
    return lost != nullptr ? std::optional(lost->name()) : std::nullopt;
}

void Engine::retire_lost() {
    for (auto each = std::next(workers_.begin()); each != workers_.end(); ++each) {
        if (each->lost() != nullptr && !each->retiring()) {
            log_warning("a connection to " + each->lost()->name() + " was lost");
            each->retire();
            has_lost_ = true;
        }
    }
}

std::vector<Range> Engine::unanswered() {
    const std::lock_guard lock(ranges_mutex_);
    return unanswered_;
}

}  // namespace nbdm
