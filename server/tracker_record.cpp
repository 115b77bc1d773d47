// SPDX-License-Identifier: Apache-2.0
#include "server/tracker_record.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <stdexcept>
#include <type_traits>

namespace nbdm {

namespace {

constexpr std::string_view kMagic = "nbdm trackers\r\n\x1a";
constexpr std::uint32_t kVersion = 1;

// FNV-1a, 64 bits. A change of one byte always shows.
std::uint64_t checksum(std::string_view bytes) noexcept {
    std::uint64_t sum = 0xcbf29ce484222325;
    for (const char byte : bytes) {
        sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
    }
    return sum;
}

[[noreturn]] void throw_damaged() {
    throw std::runtime_error("their record is damaged");
}

class Writer {
  public:
    template <typename Number>
    void number(Number value) {
        static_assert(std::is_integral_v<Number>);
        char bytes[sizeof(value)];
        std::memcpy(bytes, &value, sizeof(value));
        written_.append(bytes, sizeof(value));
    }
    void raw(std::string_view bytes) { written_.append(bytes); }
    void text(std::string_view text) {
        number(std::uint64_t{text.size()});
        raw(text);
    }
    // Stretches (first word, count, words), the last one empty.
    void words(std::span<const std::uint64_t> words) {
        const auto is_zero = [](std::uint64_t word) { return word == 0; };
        for (auto at = words.begin();;) {
            const auto first = std::find_if_not(at, words.end(), is_zero);
            at = std::find_if(first, words.end(), is_zero);
            number(static_cast<std::uint64_t>(first - words.begin()));
            number(static_cast<std::uint64_t>(at - first));
            if (first == at) {
                return;
            }
            std::for_each(first, at, [this](std::uint64_t word) { number(word); });
        }
    }
    [[nodiscard]] std::string finish() && {
        number(checksum(written_));
        return std::move(written_);
    }

  private:
    std::string written_;
};

// Throws when the record ends early.
class Reader {
  public:
    explicit Reader(std::string_view left) : left_(left) {}

    std::string_view raw(std::uint64_t bytes) {
        if (bytes > left_.size()) {
            throw_damaged();
        }
        const std::string_view result = left_.substr(0, bytes);
        left_.remove_prefix(bytes);
        return result;
    }
    template <typename Number>
    Number number() {
        static_assert(std::is_integral_v<Number>);
        Number value = 0;
        std::memcpy(&value, raw(sizeof(value)).data(), sizeof(value));
        return value;
    }
    std::string text() { return std::string(raw(number<std::uint64_t>())); }
    std::vector<std::uint64_t> words(std::uint64_t count) {
        std::vector<std::uint64_t> result(count);
        for (std::uint64_t done = 0;;) {
            const auto first = number<std::uint64_t>();
            const auto length = number<std::uint64_t>();
            if (first < done || first > count || length > count - first) {
                throw_damaged();
            }
            if (length == 0) {
                return result;
            }
            const std::string_view bytes = raw(length * sizeof(std::uint64_t));
            std::memcpy(result.data() + first, bytes.data(), bytes.size());
            done = first + length;
        }
    }
    [[nodiscard]] bool at_end() const noexcept { return left_.empty(); }

  private:
    std::string_view left_;
};

void write(Writer& out, const TrackerImage& tracker) {
    out.text(tracker.name);
    out.number(tracker.incarnation);
    out.number(tracker.granularity_bytes);
    out.number(static_cast<std::uint8_t>(tracker.exclusive));
    out.number(tracker.generation);
    out.words(tracker.dirty);
}

TrackerImage read_tracker(Reader& in, std::uint64_t disk_bytes) {
    TrackerImage tracker;
    tracker.name = in.text();
    tracker.incarnation = in.number<std::uint32_t>();
    tracker.granularity_bytes = in.number<std::uint32_t>();
    tracker.exclusive = in.number<std::uint8_t>() != 0;
    tracker.generation = in.number<std::uint64_t>();
    if (tracker.name.empty() || tracker.incarnation == 0 ||
        !std::has_single_bit(tracker.granularity_bytes) ||
        tracker.granularity_bytes < TrackerSet::kMinGranularityBytes ||
        tracker.granularity_bytes > TrackerSet::kMaxGranularityBytes) {
        throw_damaged();
    }
    const DirtyMap::Shape shape = DirtyMap::shape(disk_bytes, tracker.granularity_bytes);
    tracker.dirty = in.words(shape.words);
    if (!tracker.dirty.empty() && (tracker.dirty.back() & ~shape.last_word) != 0) {
        throw_damaged();
    }
    return tracker;
}

}  // namespace

std::string TrackerRecord::encode() const {
    Writer out;
    out.raw(kMagic);
    out.number(kVersion);
    out.text(disk.path);
    out.text(disk.storage);
    out.number(disk.born_at_ns);
    out.text(stamp.boot_id);
    out.number(stamp.inode);
    out.number(stamp.size_bytes);
    out.number(stamp.modified_ns);
    out.number(stamp.changed_ns);
    out.number(trackers.last_incarnation);
    out.number(static_cast<std::uint32_t>(trackers.trackers.size()));
    for (const TrackerImage& each : trackers.trackers) {
        write(out, each);
    }
    return std::move(out).finish();
}

TrackerRecord TrackerRecord::decode(std::string_view stored) {
    if (stored.size() < kMagic.size() + sizeof(kVersion) + sizeof(std::uint64_t) ||
        !stored.starts_with(kMagic)) {
        throw_damaged();
    }
    const std::string_view summed = stored.substr(0, stored.size() - sizeof(std::uint64_t));
    Reader in(summed.substr(kMagic.size()));
    // Other versions may have no such checksum.
    if (const auto version = in.number<std::uint32_t>(); version != kVersion) {
        throw std::runtime_error("their record is of version " + std::to_string(version) +
                                 ", not " + std::to_string(kVersion));
    }
    if (Reader(stored.substr(summed.size())).number<std::uint64_t>() != checksum(summed)) {
        throw_damaged();
    }
    TrackerRecord record;
    record.disk.path = in.text();
    record.disk.storage = in.text();
    record.disk.born_at_ns = in.number<std::int64_t>();
    record.stamp.boot_id = in.text();
    record.stamp.inode = in.number<std::uint64_t>();
    record.stamp.size_bytes = in.number<std::uint64_t>();
    record.stamp.modified_ns = in.number<std::int64_t>();
    record.stamp.changed_ns = in.number<std::int64_t>();
    record.trackers.last_incarnation = in.number<std::uint32_t>();
    std::vector<TrackerImage>& trackers = record.trackers.trackers;
    const auto count = in.number<std::uint32_t>();
    if (count > TrackerSet::kMaxTrackers) {
        throw_damaged();
    }
    while (trackers.size() < count) {
        TrackerImage next = read_tracker(in, record.stamp.size_bytes);
        if (std::any_of(trackers.begin(), trackers.end(), [&](const TrackerImage& other) {
                return other.name == next.name || other.incarnation == next.incarnation;
            })) {
            throw_damaged();
        }
        trackers.push_back(std::move(next));
    }
    if (!in.at_end()) {
        throw_damaged();
    }
    return record;
}

}  // namespace nbdm
