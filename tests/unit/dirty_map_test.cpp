// SPDX-License-Identifier: Apache-2.0
#include "server/dirty_map.h"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace nbdm {

namespace {

constexpr std::uint32_t kBlock = 4096;

std::vector<bool> blocks_of(const DirtyMap& map, std::uint64_t disk_bytes) {
    std::vector<bool> result((disk_bytes + kBlock - 1) / kBlock);
    for (std::uint64_t at = 0; at < disk_bytes;) {
        const DirtyExtent extent = map.next_extent(Range::from_to(at, disk_bytes));
        for (std::uint64_t block = at / kBlock; block * kBlock < extent.range.end(); ++block) {
            result[block] = extent.dirty;
        }
        at = extent.range.end();
    }
    return result;
}

}  // namespace

TEST(DirtyMap, WordsOfOneMapMarkTheSameBlocksInAnother) {
    for (const std::uint64_t bytes : {1, 4096, 64 * 4096, 64 * 4096 + 1, 1000 * 4096}) {
        DirtyMap map(bytes, kBlock);
        map.mark({0, 1});
        map.mark({bytes - 1, 1});
        const std::vector<std::uint64_t> words = map.words();
        const DirtyMap::Shape shape = DirtyMap::shape(bytes, kBlock);
        ASSERT_EQ(words.size(), shape.words);
        EXPECT_EQ(words.back() & ~shape.last_word, 0U);
        DirtyMap other(bytes, kBlock);
        other.mark({bytes / 2, 1});
        map.mark({bytes / 2, 1});
        other.mark_words(words);
        EXPECT_EQ(blocks_of(other, bytes), blocks_of(map, bytes));
        EXPECT_EQ(other.count_bytes(), map.count_bytes());
        map.mark({0, bytes});
        EXPECT_EQ(map.words().back(), shape.last_word);
    }
}

TEST(DirtyMap, AWriteOfOneByteMarksItsWholeBlock) {
    DirtyMap map(1 << 20, kBlock);
    map.mark({4095, 2});
    EXPECT_EQ(map.count_bytes(), 2u * kBlock);
    EXPECT_EQ(map.next_extent({0, 1 << 20}).range, (Range{0, 8192}));
}

TEST(DirtyMap, TheLastBlockIsAsShortAsTheDisk) {
    const std::uint64_t disk = 5 * kBlock + 7;
    DirtyMap map(disk, kBlock);
    map.mark({disk - 1, 1});
    EXPECT_EQ(map.count_bytes(), 7u);
    const DirtyExtent clean = map.next_extent({0, disk});
    EXPECT_FALSE(clean.dirty);
    const DirtyExtent dirty = map.next_extent(Range::from_to(clean.range.end(), disk));
    EXPECT_TRUE(dirty.dirty);
    EXPECT_EQ(dirty.range.end(), disk);
}

TEST(DirtyMap, ADiskSmallerThanABlockHasOneBlock) {
    DirtyMap map(100, 65536);
    map.mark({0, 100});
    EXPECT_EQ(map.count_bytes(), 100u);
    EXPECT_EQ(map.next_extent({10, 50}).range, (Range{10, 50}));
}

TEST(DirtyMap, AgreesWithAPlainListOfBlocks) {
    std::mt19937 random(1);
    for (int round = 0; round < 200; ++round) {
        const std::uint64_t disk = 1 + random() % (300 * kBlock);
        DirtyMap map(disk, kBlock);
        std::vector<bool> expected((disk + kBlock - 1) / kBlock);
        for (int i = 0; i < 5; ++i) {
            const std::uint64_t offset = random() % disk;
            const Range range = Range{offset, 1 + random() % (disk - offset)};
            map.mark(range);
            for (std::uint64_t block = range.offset / kBlock; block * kBlock < range.end();
                 ++block) {
                expected[block] = true;
            }
        }
        ASSERT_EQ(blocks_of(map, disk), expected) << "round " << round;
    }
}

TEST(DirtyMap, MovingAddsToWhatWasNotAcknowledged) {
    constexpr std::uint64_t kDisk = 1 << 20;
    DirtyMap active(kDisk, kBlock);
    DirtyMap frozen(kDisk, kBlock);
    active.mark({0, 1});
    active.move_into(frozen, {0, kDisk});
    active.mark({kBlock, 1});
    active.move_into(frozen, {0, kDisk});
    EXPECT_EQ(frozen.count_bytes(), 2u * kBlock);
    EXPECT_EQ(active.count_bytes(), 0u);
}

TEST(DirtyMap, AMoveOfARangeTakesItsBlocksAndCountsWhatIsNew) {
    constexpr std::uint64_t kDisk = 200 * kBlock;
    DirtyMap active(kDisk, kBlock);
    DirtyMap frozen(kDisk, kBlock);
    active.mark({0, kDisk});
    frozen.mark({70 * kBlock, 10 * kBlock});
    EXPECT_EQ(active.move_into(frozen, {60 * kBlock, 80 * kBlock}), 70u * kBlock);
    for (std::uint64_t block = 0; block < 200; ++block) {
        const bool inside = block >= 60 && block < 140;
        EXPECT_EQ(active.next_extent({block * kBlock, kBlock}).dirty, !inside) << block;
        EXPECT_EQ(frozen.next_extent({block * kBlock, kBlock}).dirty, inside) << block;
    }
    EXPECT_EQ(active.move_into(frozen, {60 * kBlock, 80 * kBlock}), 0u);
    EXPECT_EQ(active.move_into(frozen, {5 * kBlock, 0}), 0u);
    EXPECT_EQ(active.move_into(frozen, {0, kDisk}), 120u * kBlock);
    EXPECT_EQ(active.count_bytes(), 0u);
}

TEST(DirtyMap, AMoveLeavesWhatIsSpared) {
    constexpr std::uint64_t kDisk = 200 * kBlock + 512;
    DirtyMap active(kDisk, kBlock);
    DirtyMap frozen(kDisk, kBlock);
    DirtyMap spared(kDisk, kBlock);
    active.mark({50 * kBlock, 100 * kBlock});
    spared.mark({60 * kBlock, 80 * kBlock});
    spared.mark({kDisk - 1, 1});
    EXPECT_EQ(active.move_into(frozen, {0, kDisk}, &spared), 20u * kBlock);
    EXPECT_EQ(active.next_extent({60 * kBlock, 140 * kBlock}).range,
              (Range{60 * kBlock, 80 * kBlock}));
    EXPECT_EQ(active.count_bytes(), 80u * kBlock);
    EXPECT_EQ(frozen.count_bytes(), 20u * kBlock);
    EXPECT_EQ(spared.count_bytes(), 80u * kBlock + 512);
}

TEST(DirtyMap, AMoveCountsTheTailOfADiskAsItIs) {
    constexpr std::uint64_t kDisk = 10 * kBlock + 512;
    DirtyMap active(kDisk, kBlock);
    DirtyMap frozen(kDisk, kBlock);
    active.mark({9 * kBlock, kBlock + 512});
    EXPECT_EQ(active.move_into(frozen, {0, kDisk}), kBlock + 512u);
    EXPECT_EQ(frozen.count_bytes(), kBlock + 512u);
}

TEST(DirtyMap, AMarkThatRacesWithAMoveIsNeverLost) {
    constexpr std::uint64_t kDisk = 64 * kBlock;
    constexpr int kMarks = 20000;
    DirtyMap active(kDisk, kBlock);
    DirtyMap frozen(kDisk, kBlock);
    // The writer raises the block's count, then marks it; the mover reads the counts of the blocks
    // that it took. At the end every count has been seen.
    std::vector<std::atomic<int>> written(64);
    std::vector<int> seen(64);
    std::atomic<bool> done{false};
    std::jthread writer([&] {
        std::mt19937 random(2);
        for (int i = 0; i < kMarks; ++i) {
            const std::size_t block = random() % 64;
            written[block].fetch_add(1, std::memory_order_relaxed);
            active.mark({block * kBlock, kBlock});
        }
        done.store(true);
    });
    bool last = false;
    while (!last) {
        last = done.load();
        active.move_into(frozen, {0, kDisk});
        const auto blocks = blocks_of(frozen, kDisk);
        for (std::size_t block = 0; block < 64; ++block) {
            if (blocks[block]) {
                seen[block] = written[block].load(std::memory_order_relaxed);
            }
        }
        frozen.clear();
    }
    for (std::size_t block = 0; block < 64; ++block) {
        EXPECT_EQ(seen[block], written[block].load()) << "block " << block;
    }
}

}  // namespace nbdm
