// SPDX-License-Identifier: Apache-2.0
#include "server/tracker.h"

#include <gtest/gtest.h>

namespace nbdm {

namespace {

constexpr std::uint64_t kDisk = 1 << 20;
constexpr std::uint32_t kBlock = 65536;

}  // namespace

TEST(TrackerSet, AWriteAfterTheFreezeIsInTheNextGeneration) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    trackers.mark({0, 1});
    const auto first = trackers.freeze("t");
    trackers.mark({kBlock, 1});
    EXPECT_EQ(first->dirty_bytes, kBlock);
    EXPECT_EQ(trackers.acknowledge("t", first->generation), TrackerSet::Acknowledged::yes);
    const auto second = trackers.freeze("t");
    EXPECT_EQ(second->dirty_bytes, kBlock);
    EXPECT_GT(second->generation, first->generation);
}

TEST(TrackerSet, AGenerationThatWasNotAcknowledgedComesAgain) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    trackers.mark({0, 1});
    const auto lost = trackers.freeze("t");
    trackers.mark({kBlock, 1});
    EXPECT_EQ(trackers.freeze("t")->dirty_bytes, 2 * kBlock);
    EXPECT_EQ(trackers.acknowledge("t", lost->generation),
              TrackerSet::Acknowledged::other_generation);
    EXPECT_EQ(trackers.status().at(0).frozen_bytes, 2 * kBlock);
    // What is written again while it is copied is dirty once.
    trackers.mark({0, 1});
    trackers.mark({2 * kBlock, 1});
    EXPECT_EQ(trackers.status().at(0).dirty_bytes, 2 * kBlock);
    EXPECT_EQ(trackers.status().at(0).unacknowledged_bytes, 3 * kBlock);
}

TEST(TrackerSet, AnAcknowledgementSaidTwiceLosesNothing) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    const auto frozen = trackers.freeze("t");
    EXPECT_EQ(trackers.acknowledge("t", frozen->generation), TrackerSet::Acknowledged::yes);
    trackers.mark({0, 1});
    EXPECT_EQ(trackers.acknowledge("t", frozen->generation), TrackerSet::Acknowledged::yes);
    EXPECT_EQ(trackers.freeze("t")->dirty_bytes, kBlock);
}

TEST(TrackerSet, WhatIsAcknowledgedInPartComesAgainInPart) {
    TrackerSet trackers(kDisk + 100);
    ASSERT_EQ(trackers.add_exclusive("t", kBlock, TrackerSet::Start::all_dirty),
              TrackerSet::Added::created);
    const std::uint64_t first = trackers.freeze("t")->generation;
    EXPECT_EQ(trackers.status().at(0).frozen_bytes, kDisk + 100);
    // A block that is only copied in part is not copied.
    EXPECT_EQ(trackers.acknowledge_up_to("t", first, 3 * kBlock - 1),
              TrackerSet::Acknowledged::yes);
    EXPECT_EQ(trackers.status().at(0).frozen_bytes, kDisk + 100 - 2 * kBlock);
    trackers.mark({0, 1});
    const auto second = trackers.freeze("t");
    EXPECT_EQ(second->dirty_bytes, kDisk + 100 - kBlock);
    EXPECT_EQ(trackers.acknowledge_up_to("t", first, kDisk),
              TrackerSet::Acknowledged::other_generation);
    EXPECT_EQ(trackers.acknowledge_up_to("t", second->generation, kDisk),
              TrackerSet::Acknowledged::yes);
    EXPECT_EQ(trackers.status().at(0).frozen_bytes, 100);
    EXPECT_EQ(trackers.acknowledge_up_to("t", second->generation, kDisk + 100),
              TrackerSet::Acknowledged::yes);
    EXPECT_EQ(trackers.freeze("t")->dirty_bytes, 0u);
}

TEST(TrackerSet, WhatIsFrozenAnewJoinsTheGenerationAndTheRestTheNext) {
    TrackerSet trackers(16 * kBlock);
    ASSERT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    trackers.mark({0, kBlock});
    const Frozen first = trackers.freeze("t").value();
    trackers.mark({0, 3 * kBlock});
    trackers.mark({9 * kBlock, kBlock});
    EXPECT_EQ(trackers.refreeze("t", first.generation, {0, 8 * kBlock}), 2U * kBlock);
    EXPECT_EQ(trackers.refreeze("t", first.generation + 1, {0, 8 * kBlock}), std::nullopt);
    EXPECT_EQ(trackers.refreeze("other", first.generation, {0, 8 * kBlock}), std::nullopt);
    EXPECT_EQ(trackers.status().at(0).frozen_bytes, 3U * kBlock);
    ASSERT_EQ(trackers.acknowledge("t", first.generation), TrackerSet::Acknowledged::yes);
    // Nobody copies what would join it now.
    trackers.mark({kBlock, kBlock});
    EXPECT_EQ(trackers.refreeze("t", first.generation, {0, 8 * kBlock}), std::nullopt);
    EXPECT_EQ(trackers.freeze("t")->dirty_bytes, 2U * kBlock);
}

TEST(TrackerSet, WhatWasCopiedAndWrittenAgainIsLeftForTheNextGeneration) {
    TrackerSet trackers(16 * kBlock);
    ASSERT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    const auto copy = [&](Leave leave) {
        const Frozen frozen = trackers.freeze("t", leave).value();
        EXPECT_EQ(trackers.acknowledge("t", frozen.generation), TrackerSet::Acknowledged::yes);
        return frozen;
    };
    trackers.mark({0, 2 * kBlock});
    EXPECT_EQ(copy(Leave::nothing).dirty_bytes, 2U * kBlock);
    trackers.mark({kBlock, 3 * kBlock});
    const Frozen settled = trackers.freeze("t", Leave::rewritten).value();
    EXPECT_EQ(settled.dirty_bytes, 2U * kBlock);
    EXPECT_EQ(settled.left_bytes, 1U * kBlock);
    // What joins this generation is chosen as it was.
    trackers.mark({0, 1});
    trackers.mark({8 * kBlock, 1});
    EXPECT_EQ(trackers.refreeze("t", settled.generation, {0, 16 * kBlock}), 1U * kBlock);
    EXPECT_EQ(trackers.acknowledge_up_to("t", settled.generation, 3 * kBlock),
              TrackerSet::Acknowledged::yes);
    // Copied in this very round, and written again.
    trackers.mark({2 * kBlock, 1});
    EXPECT_EQ(trackers.refreeze("t", settled.generation, {0, 16 * kBlock}), 0U);
    ASSERT_EQ(trackers.acknowledge("t", settled.generation), TrackerSet::Acknowledged::yes);
    EXPECT_EQ(copy(Leave::nothing).dirty_bytes, 3U * kBlock);
    // A freeze that leaves nothing begins anew: block 3 was copied before it.
    trackers.mark({3 * kBlock, 1});
    trackers.mark({2 * kBlock, 1});
    EXPECT_EQ(copy(Leave::rewritten).dirty_bytes, 1U * kBlock);
    EXPECT_EQ(copy(Leave::nothing).dirty_bytes, 1U * kBlock);
}

TEST(TrackerSet, TrackersDoNotTakeEachOthersMarks) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add("a", kBlock), TrackerSet::Added::created);
    ASSERT_EQ(trackers.add("b", 4096), TrackerSet::Added::created);
    trackers.mark({0, 1});
    EXPECT_EQ(trackers.freeze("a")->dirty_bytes, kBlock);
    EXPECT_EQ(trackers.freeze("b")->dirty_bytes, 4096u);
}

TEST(TrackerSet, ARemovedTrackerStartsCleanAndItsOldReferenceDoesNotStand) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    trackers.mark({0, kDisk});
    const auto old = trackers.find("t");
    EXPECT_TRUE(trackers.remove("t"));
    EXPECT_FALSE(old->stands());
    EXPECT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    EXPECT_EQ(trackers.freeze("t")->dirty_bytes, 0u);
    EXPECT_TRUE(trackers.find("t")->stands());
}

TEST(TrackerSet, AnExclusiveTrackerStandsAloneWhileItIsRead) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add_exclusive("a", kBlock), TrackerSet::Added::created);
    const auto first = *trackers.find("a");
    // Nobody reads it yet: the next one takes its place, and its maker can see that.
    ASSERT_EQ(trackers.add_exclusive("b", kBlock), TrackerSet::Added::created);
    EXPECT_FALSE(first.stands());
    EXPECT_FALSE(trackers.find("a"));
    {
        const TrackerReader reader(*trackers.find("b"));
        EXPECT_EQ(trackers.add_exclusive("b", kBlock), TrackerSet::Added::taken);
        EXPECT_EQ(trackers.add_exclusive("c", kBlock), TrackerSet::Added::taken);
        EXPECT_EQ(trackers.add("shared", kBlock), TrackerSet::Added::created);
    }
    EXPECT_EQ(trackers.add_exclusive("shared", kBlock), TrackerSet::Added::taken);
    EXPECT_EQ(trackers.add_exclusive("c", kBlock), TrackerSet::Added::created);
    EXPECT_TRUE(trackers.find("shared"));
}

TEST(TrackerSet, AnExclusiveTrackerIsNoSharedOnes) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add_exclusive("a", kBlock), TrackerSet::Added::created);
    EXPECT_EQ(trackers.add("a", kBlock), TrackerSet::Added::taken);
}

TEST(TrackerSet, TrackersThatWereRemovedTakeNobodysPlace) {
    TrackerSet trackers(kDisk);
    for (std::uint32_t granularity = kBlock; granularity <= 8 * kBlock; granularity *= 2) {
        for (std::size_t i = 0; i < TrackerSet::kMaxTrackers; ++i) {
            ASSERT_EQ(trackers.add(std::to_string(i), granularity), TrackerSet::Added::created);
        }
        EXPECT_EQ(trackers.add_exclusive("x", granularity), TrackerSet::Added::too_many);
        for (std::size_t i = 0; i < TrackerSet::kMaxTrackers; ++i) {
            ASSERT_TRUE(trackers.remove(std::to_string(i)));
        }
    }
}

TEST(TrackerSet, AnExclusiveTrackerTakesThePlaceOfTheLastOne) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add_exclusive("a", kBlock), TrackerSet::Added::created);
    const auto standing = *trackers.find("a");
    for (std::size_t i = 1; i < TrackerSet::kMaxTrackers; ++i) {
        ASSERT_EQ(trackers.add(std::to_string(i), kBlock), TrackerSet::Added::created);
    }
    EXPECT_EQ(trackers.add_exclusive("b", 2 * kBlock), TrackerSet::Added::created);
    EXPECT_FALSE(standing.stands());
}

TEST(TrackerSet, ReadersOfARemovedTrackerAreNotCountedForTheNext) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    const auto old = *trackers.find("t");
    auto reader = std::make_unique<TrackerReader>(old);
    EXPECT_EQ(trackers.status().at(0).readers, 1U);
    ASSERT_TRUE(trackers.remove("t"));
    ASSERT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    ASSERT_EQ(trackers.find("t")->tracker, old.tracker);  // its memory is used again
    EXPECT_EQ(trackers.status().at(0).readers, 0U);
    const TrackerReader late(old);
    EXPECT_EQ(trackers.status().at(0).readers, 0U);
    reader.reset();
    EXPECT_EQ(trackers.status().at(0).readers, 0U);
}

TEST(TrackerSet, RefusesOtherGranularityUnknownNamesAndTooMany) {
    TrackerSet trackers(kDisk);
    ASSERT_EQ(trackers.add("t", kBlock), TrackerSet::Added::created);
    EXPECT_EQ(trackers.add("t", kBlock), TrackerSet::Added::exists);
    EXPECT_EQ(trackers.add("t", 4096), TrackerSet::Added::other_granularity);
    EXPECT_FALSE(trackers.freeze("other"));
    EXPECT_FALSE(trackers.remove("other"));
    for (std::size_t i = 1; i < TrackerSet::kMaxTrackers; ++i) {
        EXPECT_EQ(trackers.add("t" + std::to_string(i), kBlock), TrackerSet::Added::created);
    }
    EXPECT_EQ(trackers.add("one more", kBlock), TrackerSet::Added::too_many);
}

TEST(TrackerSet, TrackersStandAgainFromTheirImage) {
    TrackerSet before(kDisk);
    ASSERT_EQ(before.add("shared", 4096), TrackerSet::Added::created);
    ASSERT_EQ(before.add_exclusive("own", kBlock), TrackerSet::Added::created);
    ASSERT_EQ(before.add("gone", kBlock), TrackerSet::Added::created);
    const std::uint32_t last = before.find("gone")->incarnation;
    ASSERT_TRUE(before.remove("gone"));
    before.mark({0, 1});
    const std::uint64_t generation = before.freeze("own")->generation;
    before.mark({kDisk - 1, 1});

    TrackerSet after(kDisk);
    after.restore(before.image());
    ASSERT_EQ(after.status().size(), 2u);
    for (const TrackerStatus& each : after.status()) {
        EXPECT_EQ(each.incarnation, before.find(each.name)->incarnation);
        EXPECT_EQ(each.exclusive, each.name == "own");
        EXPECT_EQ(each.granularity_bytes, each.name == "own" ? kBlock : 4096u);
        EXPECT_EQ(each.dirty_bytes, 2 * each.granularity_bytes);
        EXPECT_EQ(each.frozen_bytes, 0u);
    }
    // The consumer may say what the last server did not hear.
    EXPECT_EQ(after.acknowledge("own", generation), TrackerSet::Acknowledged::yes);
    EXPECT_EQ(after.freeze("own")->dirty_bytes, 2 * kBlock);
    EXPECT_EQ(after.freeze("own")->generation, generation + 2);
    ASSERT_EQ(after.add("gone", kBlock), TrackerSet::Added::created);
    EXPECT_EQ(after.find("gone")->incarnation, last + 1);
}

}  // namespace nbdm
