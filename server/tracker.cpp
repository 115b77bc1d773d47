// SPDX-License-Identifier: Apache-2.0
#include "server/tracker.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <random>

namespace nbdm {

Tracker::Tracker(std::uint64_t disk_bytes, std::uint32_t granularity_bytes)
    : active_(disk_bytes, granularity_bytes),
      frozen_(disk_bytes, granularity_bytes),
      copied_(disk_bytes, granularity_bytes) {}

void Tracker::count_reader(std::uint32_t incarnation, int change) const noexcept {
    std::uint64_t seen = standing_.load(std::memory_order_acquire);
    while (seen >> 32 == incarnation &&
           !standing_.compare_exchange_weak(seen, seen + static_cast<std::uint64_t>(change),
                                            std::memory_order_acq_rel)) {
    }
}

// A number of its own for each run of a server: what is said of a tracker of an earlier one is not
// taken for one of this.
TrackerSet::TrackerSet(std::uint64_t disk_bytes)
    : disk_bytes_(disk_bytes), last_incarnation_(std::random_device{}()) {}

void TrackerSet::mark(Range range) noexcept {
    // With add()'s store: whoever does not see the tracker here wrote its data before that store.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    for (auto& slot : in_use_) {
        if (Tracker* tracker = slot.load(std::memory_order_acquire)) {
            tracker->mark(range);
        }
    }
}

TrackerSet::Added TrackerSet::add(const std::string& name, std::uint32_t granularity_bytes) {
    const std::lock_guard lock(mutex_);
    if (const Tracker* standing = find_locked(name); standing != nullptr && standing->exclusive_) {
        return Added::taken;
    }
    return add_locked(name, granularity_bytes, false, Start::clean);
}

TrackerSet::Added TrackerSet::add_exclusive(const std::string& name,
                                            std::uint32_t granularity_bytes, Start start) {
    const std::lock_guard lock(mutex_);
    const Tracker* same_name = find_locked(name);
    const bool shared = same_name != nullptr && !same_name->exclusive_;
    const bool read = std::any_of(all_.begin(), all_.end(), [](const auto& tracker) {
        return tracker->exclusive_ && tracker->readers() > 0;
    });
    if (shared || read) {
        return Added::taken;
    }
    for (const auto& tracker : all_) {
        if (tracker->exclusive_) {
            remove_locked(*tracker);
        }
    }
    return add_locked(name, granularity_bytes, true, start);
}

TrackerSet::Added TrackerSet::add_locked(const std::string& name, std::uint32_t granularity_bytes,
                                         bool exclusive, Start start) {
    if (const Tracker* standing = find_locked(name)) {
        return standing->active_.block_bytes() == granularity_bytes ? Added::exists
                                                                    : Added::other_granularity;
    }
    const auto free_slot = std::find_if(in_use_.begin(), in_use_.end(), [](const auto& slot) {
        return slot.load(std::memory_order_relaxed) == nullptr;
    });
    if (free_slot == in_use_.end()) {
        return Added::too_many;
    }
    const auto kept = std::find_if(all_.begin(), all_.end(), [&](const auto& tracker) {
        return tracker->name_.empty() && tracker->active_.block_bytes() == granularity_bytes &&
               tracker->active_.disk_bytes() == disk_bytes_;
    });
    Tracker* tracker = nullptr;
    if (kept != all_.end()) {
        tracker = kept->get();
        tracker->active_.clear();
        tracker->frozen_.clear();
        tracker->copied_.clear();
    } else {
        tracker =
            all_.emplace_back(std::make_unique<Tracker>(disk_bytes_, granularity_bytes)).get();
    }
    if (start == Start::all_dirty) {
        tracker->active_.mark({0, disk_bytes_});
    }
    tracker->name_ = name;
    tracker->exclusive_ = exclusive;
    tracker->acknowledged_ = true;
    last_incarnation_ = std::max<std::uint32_t>(last_incarnation_ + 1, 1);
    tracker->standing_.store(std::uint64_t{last_incarnation_} << 32, std::memory_order_release);
    // seq_cst: a writer that does not see the tracker finished its disk write before this store,
    // so that whatever its consumer reads from now on contains that write.
    free_slot->store(tracker, std::memory_order_seq_cst);
    return Added::created;
}

bool TrackerSet::remove(std::string_view name) {
    const std::lock_guard lock(mutex_);
    Tracker* tracker = find_locked(name);
    if (tracker == nullptr) {
        return false;
    }
    remove_locked(*tracker);
    return true;
}

void TrackerSet::remove_locked(Tracker& tracker) {
    for (auto& slot : in_use_) {
        if (slot.load(std::memory_order_relaxed) == &tracker) {
            slot.store(nullptr, std::memory_order_seq_cst);
        }
    }
    tracker.standing_.store(0, std::memory_order_release);
    tracker.exclusive_ = false;
    tracker.name_.clear();
}

std::optional<Frozen> TrackerSet::freeze(std::string_view name, Leave leave) {
    const std::lock_guard lock(mutex_);
    Tracker* tracker = find_locked(name);
    if (tracker == nullptr) {
        return std::nullopt;
    }
    if (leave == Leave::nothing) {
        tracker->copied_.clear();  // and spares nothing
    }
    tracker->active_.move_into(tracker->frozen_, tracker->whole(), &tracker->copied_);
    tracker->acknowledged_ = false;
    tracker->left_ = leave;
    return Frozen{.generation = ++tracker->generation_,
                  .dirty_bytes = tracker->frozen_.count_bytes(),
                  .left_bytes = leave == Leave::rewritten ? tracker->active_.count_bytes() : 0};
}

std::optional<std::uint64_t> TrackerSet::refreeze(std::string_view name, std::uint64_t generation,
                                                  Range range) {
    const std::lock_guard lock(mutex_);
    Tracker* tracker = find_locked(name);
    if (tracker == nullptr || tracker->generation_ != generation || tracker->acknowledged_) {
        return std::nullopt;
    }
    return tracker->active_.move_into(
        tracker->frozen_, range, tracker->left_ == Leave::rewritten ? &tracker->copied_ : nullptr);
}

TrackerSet::Acknowledged TrackerSet::acknowledge(std::string_view name, std::uint64_t generation) {
    const std::lock_guard lock(mutex_);
    return acknowledge_locked(name, generation, [](Tracker& tracker) {
        // Said again (its first answer was lost): nothing is frozen.
        tracker.frozen_.move_into(tracker.copied_, tracker.whole());
        tracker.acknowledged_ = true;
    });
}

TrackerSet::Acknowledged TrackerSet::acknowledge_up_to(std::string_view name,
                                                       std::uint64_t generation,
                                                       std::uint64_t offset_bytes) {
    const std::lock_guard lock(mutex_);
    return acknowledge_locked(name, generation, [&](Tracker& tracker) {
        const std::uint64_t disk_bytes = tracker.frozen_.disk_bytes();
        const std::uint64_t end =
            offset_bytes >= disk_bytes
                ? disk_bytes
                : align_down(offset_bytes, std::uint64_t{tracker.frozen_.block_bytes()});
        tracker.frozen_.move_into(tracker.copied_, {0, end});
    });
}

template <typename Clear>
TrackerSet::Acknowledged TrackerSet::acknowledge_locked(std::string_view name,
                                                        std::uint64_t generation, Clear clear) {
    Tracker* tracker = find_locked(name);
    if (tracker == nullptr) {
        return Acknowledged::unknown_tracker;
    }
    if (tracker->generation_ != generation) {
        return Acknowledged::other_generation;
    }
    clear(*tracker);
    return Acknowledged::yes;
}

std::uint64_t TrackerSet::dirty_bytes(std::string_view name) const {
    const std::lock_guard lock(mutex_);
    const Tracker* tracker = find_locked(name);
    return tracker == nullptr ? 0 : tracker->active_.count_bytes();
}

bool TrackerSet::grow_to(std::uint64_t disk_bytes) {
    const std::lock_guard lock(mutex_);
    if (std::any_of(all_.begin(), all_.end(),
                    [](const auto& tracker) { return !tracker->name_.empty(); })) {
        return false;
    }
    disk_bytes_ = disk_bytes;
    return true;
}

TrackerSetImage TrackerSet::image() const {
    const std::lock_guard lock(mutex_);
    TrackerSetImage image{.last_incarnation = last_incarnation_, .trackers = {}};
    for (const auto& tracker : all_) {
        if (tracker->name_.empty()) {
            continue;
        }
        TrackerImage& one = image.trackers.emplace_back(
            TrackerImage{.name = tracker->name_,
                         .incarnation = tracker->incarnation(),
                         .granularity_bytes = tracker->active_.block_bytes(),
                         .exclusive = tracker->exclusive_,
                         .generation = tracker->generation_,
                         .dirty = tracker->active_.words()});
        const std::vector<std::uint64_t> frozen = tracker->frozen_.words();
        std::transform(frozen.begin(), frozen.end(), one.dirty.begin(), one.dirty.begin(),
                       std::bit_or<>());
    }
    return image;
}

void TrackerSet::restore(const TrackerSetImage& kept) {
    const std::lock_guard lock(mutex_);
    for (const TrackerImage& each : kept.trackers) {
        last_incarnation_ = each.incarnation - 1;
        [[maybe_unused]] const Added added =
            add_locked(each.name, each.granularity_bytes, each.exclusive, Start::clean);
        assert(added == Added::created);
        Tracker& tracker = *find_locked(each.name);
        tracker.generation_ = each.generation;
        tracker.active_.mark_words(each.dirty);
    }
    // The next ones go on from there, so that none has a number that was another's.
    last_incarnation_ = kept.last_incarnation;
}

std::vector<TrackerStatus> TrackerSet::status() const {
    const std::lock_guard lock(mutex_);
    std::vector<TrackerStatus> result;
    for (const auto& tracker : all_) {
        if (!tracker->name_.empty()) {
            result.push_back(
                {.name = tracker->name_,
                 .granularity_bytes = tracker->active_.block_bytes(),
                 .generation = tracker->generation_,
                 .frozen_bytes = tracker->frozen_.count_bytes(),
                 .dirty_bytes = tracker->active_.count_bytes(),
                 .unacknowledged_bytes = tracker->active_.count_bytes_with(tracker->frozen_),
                 .incarnation = tracker->incarnation(),
                 .readers = tracker->readers(),
                 .exclusive = tracker->exclusive_});
        }
    }
    return result;
}

std::optional<TrackerReference> TrackerSet::find(std::string_view name) const {
    const std::lock_guard lock(mutex_);
    const Tracker* tracker = find_locked(name);
    if (tracker == nullptr) {
        return std::nullopt;
    }
    return TrackerReference{tracker, tracker->incarnation()};
}

std::vector<std::string> TrackerSet::names() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> result;
    for (const auto& tracker : all_) {
        if (!tracker->name_.empty()) {
            result.push_back(tracker->name_);
        }
    }
    return result;
}

Tracker* TrackerSet::find_locked(std::string_view name) const {
    const auto found = std::find_if(all_.begin(), all_.end(), [&](const auto& tracker) {
        return !name.empty() && tracker->name_ == name;
    });
    return found == all_.end() ? nullptr : found->get();
}

}  // namespace nbdm
