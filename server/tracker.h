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
#include <utility>
#include <vector>

#include "iothread/range.h"
#include "server/dirty_map.h"

namespace nbdm {

// What a freeze leaves in the active map for a later generation: nothing, or what was acknowledged
// since the last freeze that left nothing, and written again.
enum class Leave { nothing, rewritten };

// A named consumer of one export's dirtiness: an active map that writers mark, and a frozen map,
// its generation, that the consumer reads; and a map of what it has copied.
//
// Memory lives as long as the export: a removed tracker is kept and used for the next one of its
// granularity, because a writer may be about to mark it. Such a late mark can only make a block
// dirty that is not, which costs one copy. Of one granularity and disk size there are
// never more than may be in use, and all granularities take twice what the finest does, at most.
class Tracker {
  public:
    Tracker(std::uint64_t disk_bytes, std::uint32_t granularity_bytes);

    // Any thread.
    void mark(Range range) noexcept { active_.mark(range); }
    [[nodiscard]] const DirtyMap& frozen() const noexcept { return frozen_; }
    // Differs between trackers of one export; 0 once it is removed: whoever negotiated it before
    // must not read on.
    [[nodiscard]] std::uint32_t incarnation() const noexcept {
        return static_cast<std::uint32_t>(standing_.load(std::memory_order_acquire) >> 32);
    }
    // Connections that have selected the frozen map of this incarnation.
    [[nodiscard]] std::uint32_t readers() const noexcept {
        return static_cast<std::uint32_t>(standing_.load(std::memory_order_acquire));
    }
    // Without effect when `incarnation` no longer stands.
    void count_reader(std::uint32_t incarnation, int change) const noexcept;

  private:
    friend class TrackerSet;
    [[nodiscard]] Range whole() const noexcept { return {0, active_.disk_bytes()}; }
    DirtyMap active_;
    DirtyMap frozen_;
    // The incarnation (upper half) with its readers, in one word: readers of an earlier one are
    // never counted for a later one.
    mutable std::atomic<std::uint64_t> standing_{0};
    // Guarded by TrackerSet's mutex.
    DirtyMap copied_;  // what Leave::rewritten leaves if it is dirty
    std::string name_;
    bool exclusive_ = false;
    std::uint64_t generation_ = 0;
    bool acknowledged_ = true;
    Leave left_ = Leave::nothing;  // by this generation
};

// A tracker as a connection refers to it.
struct TrackerReference {
    const Tracker* tracker = nullptr;
    std::uint32_t incarnation = 0;
    [[nodiscard]] bool stands() const noexcept { return tracker->incarnation() == incarnation; }
};

// Counts as one reader of a tracker for as long as it lives. Any thread.
class TrackerReader {
  public:
    explicit TrackerReader(TrackerReference read) noexcept : read_(read) {
        read_.tracker->count_reader(read_.incarnation, 1);
    }
    TrackerReader(const TrackerReader&) = delete;
    TrackerReader& operator=(const TrackerReader&) = delete;
    TrackerReader(TrackerReader&& other) noexcept : read_(std::exchange(other.read_, {})) {}
    TrackerReader& operator=(TrackerReader&&) = delete;
    ~TrackerReader() {
        if (read_.tracker != nullptr) {
            read_.tracker->count_reader(read_.incarnation, -1);
        }
    }

  private:
    TrackerReference read_;
};

struct TrackerStatus {
    std::string name;
    std::uint32_t granularity_bytes = 0;
    std::uint64_t generation = 0;
    std::uint64_t frozen_bytes = 0;          // 0 once acknowledged
    std::uint64_t dirty_bytes = 0;           // in the active map
    std::uint64_t unacknowledged_bytes = 0;  // in either
    std::uint32_t incarnation = 0;
    std::uint32_t readers = 0;
    bool exclusive = false;
};

struct Frozen {
    std::uint64_t generation = 0;
    std::uint64_t dirty_bytes = 0;
    std::uint64_t left_bytes = 0;  // in the active map
};

// A tracker as it is kept while no server runs.
struct TrackerImage {
    std::string name;
    std::uint32_t incarnation = 0;
    std::uint32_t granularity_bytes = 0;
    bool exclusive = false;
    std::uint64_t generation = 0;
    // DirtyMap::words() of all that its consumer has not acknowledged.
    std::vector<std::uint64_t> dirty;
};

// All trackers of an export.
struct TrackerSetImage {
    std::uint32_t last_incarnation = 0;
    std::vector<TrackerImage> trackers;
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

    explicit TrackerSet(std::uint64_t disk_bytes);

    // Every tracker learns that `range` was written to, whatever the write's result. Call after
    // the disk is done with it and before the client is answered.
    void mark(Range range) noexcept;

    enum class Added { created, exists, other_granularity, too_many, taken };
    // `granularity_bytes` is a power of two within the limits above. A tracker starts clean: what
    // was completed before it stood is not in it. `taken` when an exclusive one has the name.
    [[nodiscard]] Added add(const std::string& name, std::uint32_t granularity_bytes);
    // What a new tracker says of what was written before it stood.
    enum class Start { clean, all_dirty };
    // A tracker of which an export has one at a time. Those that nobody reads any more give way to
    // it, also one of its name; `taken` when one is read, or when a shared tracker has the name.
    // Unless it is created, all that stood still do. Never `exists` or `other_granularity`.
    [[nodiscard]] Added add_exclusive(const std::string& name, std::uint32_t granularity_bytes,
                                      Start start = Start::clean);
    // False when there is none of this name.
    [[nodiscard]] bool remove(std::string_view name);

    // Starts a new generation: what is marked goes to the frozen map, on top of a generation that
    // was not acknowledged. Atomic towards writers: a write that completes after freeze() began is
    // in the active map or in the frozen one, and in the active one if it completes after the
    // return.
    [[nodiscard]] std::optional<Frozen> freeze(std::string_view name, Leave leave = Leave::nothing);

    // What was marked in `range` since joins this generation, in whole blocks, but for what the
    // generation leaves. Atomic towards writers as freeze() is. Returns the bytes that are new in
    // it; nothing when the tracker is not at that generation, or that was acknowledged.
    [[nodiscard]] std::optional<std::uint64_t> refreeze(std::string_view name,
                                                        std::uint64_t generation, Range range);

    enum class Acknowledged { yes, other_generation, unknown_tracker };
    // The consumer's copy of this generation is durable: the frozen map is cleared.
    [[nodiscard]] Acknowledged acknowledge(std::string_view name, std::uint64_t generation);
    // The same of the blocks that end at or before an offset; the rest stays as it is.
    [[nodiscard]] Acknowledged acknowledge_up_to(std::string_view name, std::uint64_t generation,
                                                 std::uint64_t offset_bytes);

    // The disk has grown: later trackers cover all of it. False, and nothing is changed, while a
    // tracker stands, whose consumer knows the old size.
    [[nodiscard]] bool grow_to(std::uint64_t disk_bytes);

    // What is to be kept of them. Nobody writes, or marks made meanwhile may be missing.
    [[nodiscard]] TrackerSetImage image() const;
    // They stand again, with the incarnations that they had, and all that was dirty is in the
    // active maps. Before anything else is done with this set, which has the disk's size of then.
    void restore(const TrackerSetImage& kept);

    // In the active map; 0 when there is no such tracker.
    [[nodiscard]] std::uint64_t dirty_bytes(std::string_view name) const;
    [[nodiscard]] std::vector<TrackerStatus> status() const;
    [[nodiscard]] std::optional<TrackerReference> find(std::string_view name) const;
    [[nodiscard]] std::vector<std::string> names() const;

  private:
    template <typename Clear>
    [[nodiscard]] Acknowledged acknowledge_locked(std::string_view name, std::uint64_t generation,
                                                  Clear clear);
    [[nodiscard]] Tracker* find_locked(std::string_view name) const;
    [[nodiscard]] Added add_locked(const std::string& name, std::uint32_t granularity_bytes,
                                   bool exclusive, Start start);
    void remove_locked(Tracker& tracker);

    // Shared (atomic): null, or a tracker in use.
    std::array<std::atomic<Tracker*>, kMaxTrackers> in_use_{};

    mutable std::mutex mutex_;  // guards all below, and the names and generations of trackers
    std::uint64_t disk_bytes_;
    std::uint32_t last_incarnation_;
    std::vector<std::unique_ptr<Tracker>> all_;  // in use and kept for reuse
};

}  // namespace nbdm
