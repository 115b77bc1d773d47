// SPDX-License-Identifier: Apache-2.0
#include "server/tracker_record.h"

#include <stdexcept>

#include <gtest/gtest.h>

namespace nbdm {

namespace {

constexpr std::uint64_t kDisk = (std::uint64_t{1} << 30) + 1000;
constexpr std::uint32_t kBlock = 65536;

TrackerImage image_of(const std::string& name, std::uint32_t incarnation,
                      std::uint32_t granularity_bytes, const std::vector<Range>& dirty) {
    DirtyMap map(kDisk, granularity_bytes);
    for (const Range range : dirty) {
        map.mark(range);
    }
    return {.name = name,
            .incarnation = incarnation,
            .granularity_bytes = granularity_bytes,
            .exclusive = incarnation % 2 == 0,
            .generation = 7 + std::uint64_t{incarnation},
            .dirty = map.words()};
}

TrackerRecord some_record() {
    return {.disk = {.path = "/a disk", .storage = "file 1.2 3", .born_at_ns = 4},
            .stamp = {.boot_id = "a-boot",
                      .inode = 3,
                      .size_bytes = kDisk,
                      .modified_ns = 5,
                      .changed_ns = 6},
            .trackers = {.last_incarnation = 99,
                         .trackers = {image_of("mirror.a", 98, kBlock, {{0, 1}, {kDisk - 1, 1}}),
                                      image_of(std::string("\xff\0x", 3), 3, 4096,
                                               {{1 << 20, 100 << 20}, {500 << 20, 4096}}),
                                      image_of("clean", 4, kBlock, {})}}};
}

std::string reason_against(const std::string& stored) {
    try {
        static_cast<void>(TrackerRecord::decode(stored));
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "";
}

}  // namespace

TEST(TrackerRecord, WhatWasStoredIsRead) {
    const TrackerRecord before = some_record();
    const TrackerRecord after = TrackerRecord::decode(before.encode());
    EXPECT_EQ(after.disk.path, before.disk.path);
    EXPECT_EQ(after.disk.storage, before.disk.storage);
    EXPECT_EQ(after.disk.born_at_ns, before.disk.born_at_ns);
    EXPECT_EQ(after.stamp.difference_from(before.stamp), "");
    EXPECT_EQ(after.trackers.last_incarnation, 99U);
    ASSERT_EQ(after.trackers.trackers.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) {
        const TrackerImage& expected = before.trackers.trackers[i];
        const TrackerImage& read = after.trackers.trackers[i];
        EXPECT_EQ(read.name, expected.name);
        EXPECT_EQ(read.incarnation, expected.incarnation);
        EXPECT_EQ(read.granularity_bytes, expected.granularity_bytes);
        EXPECT_EQ(read.exclusive, expected.exclusive);
        EXPECT_EQ(read.generation, expected.generation);
        EXPECT_EQ(read.dirty, expected.dirty);
    }
}

TEST(TrackerRecord, EveryChangedByteIsFound) {
    const std::string stored = some_record().encode();
    for (std::size_t at = 0; at < stored.size(); ++at) {
        for (const int bit : {0, 7}) {
            std::string damaged = stored;
            damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
            EXPECT_NE(reason_against(damaged), "") << at;
        }
    }
}

TEST(TrackerRecord, ARecordThatIsCutOrTooLongIsFound) {
    const std::string stored = some_record().encode();
    for (std::size_t length = 0; length < stored.size(); ++length) {
        EXPECT_NE(reason_against(stored.substr(0, length)), "") << length;
    }
    EXPECT_NE(reason_against(stored + std::string(1, '\0')), "");
    EXPECT_NE(reason_against(stored + std::string(4096, '\0')), "");
}

TEST(TrackerRecord, AnotherVersionIsNamed) {
    std::string stored = some_record().encode();
    const std::size_t version = stored.find('\x1a') + 1;
    stored[version] = 2;
    EXPECT_EQ(reason_against(stored), "their record is of version 2, not 1");
}

// Whole, and yet nothing that a set of trackers can take.
TEST(TrackerRecord, WhatNoTrackerCanBeIsRefused) {
    const auto refused = [](auto change) {
        TrackerRecord record = some_record();
        change(record, record.trackers.trackers[0]);
        return !reason_against(record.encode()).empty();
    };
    EXPECT_FALSE(refused([](auto&, auto&) {}));
    EXPECT_TRUE(refused([](auto&, auto& tracker) { tracker.name.clear(); }));
    EXPECT_TRUE(refused([](auto&, auto& tracker) { tracker.name = "clean"; }));
    EXPECT_TRUE(refused([](auto&, auto& tracker) { tracker.incarnation = 0; }));
    EXPECT_TRUE(refused([](auto&, auto& tracker) { tracker.incarnation = 3; }));
    EXPECT_TRUE(refused([](auto&, auto& tracker) { tracker.granularity_bytes = 65535; }));
    EXPECT_TRUE(refused([](auto&, auto& tracker) { tracker.granularity_bytes = 2048; }));
    EXPECT_TRUE(refused([](auto&, auto& tracker) { tracker.dirty.push_back(1); }));
    EXPECT_TRUE(refused([](auto&, auto& tracker) { tracker.dirty.back() = ~std::uint64_t{0}; }));
    EXPECT_TRUE(refused([](auto& record, auto&) { record.stamp.size_bytes = kBlock; }));
    EXPECT_TRUE(refused([](auto& record, auto&) {
        auto& trackers = record.trackers.trackers;
        while (trackers.size() <= TrackerSet::kMaxTrackers) {
            const auto number = static_cast<std::uint32_t>(trackers.size());
            trackers.push_back(image_of(std::to_string(number), 1000 + number, kBlock, {}));
        }
    }));
}

TEST(TrackerRecord, LittleDirtTakesLittleSpace) {
    TrackerRecord record = some_record();
    record.trackers.trackers = {image_of("t", 1, 4096, {{0, 1}, {512 << 20, 1 << 20}})};
    EXPECT_LT(record.encode().size(), 500U);
    record.trackers.trackers = {image_of("t", 1, 4096, {{0, kDisk}})};
    EXPECT_LT(record.encode().size(), kDisk / 4096 / 8 + 500);
}

}  // namespace nbdm
