// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "iothread/range.h"
#include "server/dirty_map.h"

namespace nbdm {

// A named consumer of one export's dirtiness: an active map that writers mark, and a frozen map,
// its generation, that the consumer reads.
//
// Memory lives as long as the export: a removed tracker is kept and used for the next one of its
// granularity, because a writer may be about to mark it. Such a late mark can only make a block
// dirty that is not, which costs one copy.
class Tracker {
  public:
    Tracker(std::uint64_t disk_bytes, std::uint32_t granularity_bytes);

    // Any thread.
    void mark(Range range) noexcept { active_.mark(range); }
    [[nodiscard]] const DirtyMap& frozen() const noexcept { return frozen_; }
    // Of all trackers of the export that ever stood; 0 once it is removed: whoever negotiated it
    // before must not read on.
    [[nodiscard]] std::uint64_t incarnation() const noexcept {
        return incarnation_.load(std::memory_order_acquire);
    }
    // Connections that have selected its frozen map.
    void add_reader() const noexcept { readers_.fetch_add(1, std::memory_order_relaxed); }
    void drop_reader() const noexcept { readers_.fetch_sub(1, std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t readers() const noexcept {
        return readers_.load(std::memory_order_relaxed);
    }

  private:
    friend class TrackerSet;
    DirtyMap active_;
    DirtyMap frozen_;
    std::atomic<std::uint64_t> incarnation_{0};
    mutable std::atomic<std::uint32_t> readers_{0};  // also of earlier incarnations
    // Guarded by TrackerSet's mutex.
    std::string name_;
    std::uint64_t generation_ = 0;
    bool acknowledged_ = true;
};

// A tracker as a connection refers to it.
struct TrackerReference {
    const Tracker* tracker = nullptr;
    std::uint64_t incarnation = 0;
    [[nodiscard]] bool stands() const noexcept { return tracker->incarnation() == incarnation; }
};

struct TrackerStatus {
    std::string name;
    std::uint32_t granularity_bytes = 0;
    std::uint64_t generation = 0;
    std::uint64_t frozen_bytes = 0;  // 0 once acknowledged
    std::uint64_t dirty_bytes = 0;   // in the active map
    std::uint64_t incarnation = 0;
    std::uint32_t readers = 0;
};

struct Frozen {
    std::uint64_t generation = 0;
    std::uint64_t dirty_bytes = 0;
};

// The trackers of one export.
//
// Threads: mark() by any iothread, lock-free. The others by any thread; they take a mutex that
//          mark() does not know.
class TrackerSet {
  public:
    static constexpr std::size_t kMaxTrackers = 16;
    static constexpr std::uint32_t kMinGranularityBytes = 4096;
    static constexpr std::uint32_t kMaxGranularityBytes = std::uint32_t{64} << 20;

    explicit TrackerSet(std::uint64_t disk_bytes) : disk_bytes_(disk_bytes) {}

    // Every tracker learns that `range` was written to, whatever the write's result. Call after
    // the disk is done with it and before the client is answered.
    void mark(Range range) noexcept;

    enum class Added { created, exists, other_granularity, too_many };
    // `granularity_bytes` is a power of two within the limits above. A tracker starts clean: what
    // was completed before it stood is not in it.
    [[nodiscard]] Added add(const std::string& name, std::uint32_t granularity_bytes);
    // False when there is none of this name.
    [[nodiscard]] bool remove(std::string_view name);

    // Starts a new generation: what is marked goes to the frozen map, on top of a generation that
    // was not acknowledged. Atomic towards writers: a write that completes after freeze() began is
    // in the active map or in the frozen one, and in the active one if it completes after the
    // return.
    [[nodiscard]] std::optional<Frozen> freeze(std::string_view name);

    enum class Acknowledged { yes, other_generation, unknown_tracker };
    // The consumer's copy of this generation is durable: the frozen map is cleared.
    [[nodiscard]] Acknowledged acknowledge(std::string_view name, std::uint64_t generation);

    [[nodiscard]] std::vector<TrackerStatus> status() const;
    [[nodiscard]] std::optional<TrackerReference> find(std::string_view name) const;
    [[nodiscard]] std::vector<std::string> names() const;

  private:
    [[nodiscard]] Tracker* find_locked(std::string_view name) const;

    const std::uint64_t disk_bytes_;
    // Shared (atomic): null, or a tracker in use.
    std::array<std::atomic<Tracker*>, kMaxTrackers> in_use_{};

    mutable std::mutex mutex_;  // guards all below, and the names and generations of trackers
    std::uint64_t last_incarnation_ = 0;
    std::vector<std::unique_ptr<Tracker>> all_;  // in use and kept for reuse
};

}  // namespace nbdm
