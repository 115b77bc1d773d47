// SPDX-License-Identifier: Apache-2.0
#include "server/kept_trackers.h"

#include <filesystem>
#include <fstream>
#include <memory>

#include <gtest/gtest.h>

#include "server/disk_stamp.h"
#include "tests/unit/test_support.h"

namespace nbdm {

namespace {

constexpr std::uint64_t kDisk = 1 << 20;
constexpr std::uint32_t kBlock = 65536;

// Two of its blocks are dirty when it stops, one of them frozen.
class KeptTrackersTest : public testing::Test {
  protected:
    void SetUp() override {
        start(disk_);
        try {
            static_cast<void>(DiskStamp::of(served_->file()));
        } catch (const std::runtime_error& error) {
            GTEST_SKIP() << directory_.path() << ": " << error.what();
        }
        ASSERT_EQ(served_->trackers().add_exclusive("t", kBlock), TrackerSet::Added::created);
        incarnation_ = served_->trackers().find("t")->incarnation;
        served_->trackers().mark({0, 1});
        ASSERT_TRUE(served_->trackers().freeze("t"));
        served_->trackers().mark({3 * kBlock, 1});
    }

    void start(const std::string& disk, bool read_only = false) {
        served_.reset();
        served_ = std::make_unique<Export>(
            ExportOptions{.name = "d",
                          .path = disk,
                          .description = {},
                          .read_only = read_only,
                          .create_bytes = read_only ? std::nullopt : std::optional(kDisk)},
            -1);
    }
    void save() {
        kept_.save(*served_);
        served_.reset();
    }
    void save_and_start() {
        save();
        start(disk_);
        kept_.restore(*served_);
    }
    [[nodiscard]] std::string record() const {
        for (const auto& each : std::filesystem::directory_iterator(state_ + "/trackers")) {
            return each.path();
        }
        return "";
    }
    [[nodiscard]] bool stands() const {
        const auto found = served_->trackers().find("t");
        return found && found->incarnation == incarnation_;
    }

    const TemporaryDirectory directory_;
    const std::string disk_ = directory_.file("disk");
    const std::string state_ = directory_.file("state");
    const KeptTrackers kept_{state_};
    std::unique_ptr<Export> served_;
    std::uint32_t incarnation_ = 0;
};

}  // namespace

TEST_F(KeptTrackersTest, StandAgainWithAllThatWasNotAcknowledged) {
    save_and_start();
    ASSERT_TRUE(stands());
    const TrackerStatus status = served_->trackers().status().at(0);
    EXPECT_EQ(status.dirty_bytes, 2 * kBlock);
    EXPECT_EQ(status.frozen_bytes, 0U);
    EXPECT_EQ(status.generation, 1U);
    EXPECT_TRUE(status.exclusive);
    EXPECT_EQ(status.readers, 0U);
}

TEST_F(KeptTrackersTest, AreUsedOnce) {
    save_and_start();
    EXPECT_EQ(record(), "");
    start(disk_);
    kept_.restore(*served_);
    EXPECT_FALSE(stands());
}

TEST_F(KeptTrackersTest, AreFoundUnderAnotherNameOfTheExport) {
    save();
    served_ = std::make_unique<Export>(
        ExportOptions{.name = "e", .path = disk_, .description = "", .create_bytes = std::nullopt},
        -1);
    kept_.restore(*served_);
    EXPECT_TRUE(stands());
}

TEST_F(KeptTrackersTest, AreNotUsedAfterAWriteThatChangesNothingButTheTime) {
    save();
    {
        std::fstream file(disk_, std::ios::in | std::ios::out);
        file.put('\0');
    }
    start(disk_);
    kept_.restore(*served_);
    EXPECT_FALSE(stands());
    EXPECT_EQ(record(), "");
}

TEST_F(KeptTrackersTest, AreNotUsedWhenTheTimeOfAWriteWasSetBack) {
    save();
    const auto time = std::filesystem::last_write_time(disk_);
    {
        std::fstream file(disk_, std::ios::in | std::ios::out);
        file.put('x');
    }
    std::filesystem::last_write_time(disk_, time);
    start(disk_);
    kept_.restore(*served_);
    EXPECT_FALSE(stands());
}

TEST_F(KeptTrackersTest, AreNotUsedOfADiskThatHasGrown) {
    save();
    std::filesystem::resize_file(disk_, 2 * kDisk);
    start(disk_);
    kept_.restore(*served_);
    EXPECT_FALSE(stands());
}

TEST_F(KeptTrackersTest, AreNotUsedOfAFileThatTookThePlaceOfAnother) {
    save();
    std::filesystem::copy_file(disk_, directory_.file("copy"));
    std::filesystem::rename(directory_.file("copy"), disk_);
    start(disk_);
    kept_.restore(*served_);
    EXPECT_FALSE(stands());
}

TEST_F(KeptTrackersTest, AreNotUsedWhenTheirRecordIsDamagedOrEmpty) {
    for (const std::uintmax_t length : {0, 100}) {
        save();
        std::filesystem::resize_file(record(), length);
        start(disk_);
        kept_.restore(*served_);
        EXPECT_TRUE(served_->trackers().names().empty());
        EXPECT_EQ(record(), "");
        ASSERT_EQ(served_->trackers().add("another", kBlock), TrackerSet::Added::created);
    }
}

TEST_F(KeptTrackersTest, ADiskThatIsServedReadOnlyMeanwhileLosesNothing) {
    save();
    start(disk_, true);
    kept_.restore(*served_);
    kept_.save(*served_);
    served_.reset();
    start(disk_);
    kept_.restore(*served_);
    EXPECT_TRUE(stands());
}

TEST_F(KeptTrackersTest, ADiskThatHasMovedAwayKeepsNone) {
    served_->gate().retire();
    save();
    EXPECT_FALSE(std::filesystem::exists(state_));
}

TEST_F(KeptTrackersTest, ADiskWhoseWriteBackFailedKeepsNone) {
    served_->note_write_back_error(EIO);
    save();
    EXPECT_FALSE(std::filesystem::exists(state_));
}

TEST_F(KeptTrackersTest, DroppedOnesAreGone) {
    save();
    start(disk_);
    kept_.drop(*served_);
    EXPECT_EQ(record(), "");
}

TEST_F(KeptTrackersTest, LaterTrackersHaveNoNumberThatWasAnothers) {
    ASSERT_EQ(served_->trackers().add("u", kBlock), TrackerSet::Added::created);
    const std::uint32_t last = served_->trackers().find("u")->incarnation;
    ASSERT_TRUE(served_->trackers().remove("u"));
    save_and_start();
    ASSERT_EQ(served_->trackers().add("u", kBlock), TrackerSet::Added::created);
    EXPECT_EQ(served_->trackers().find("u")->incarnation, last + 1);
}

TEST_F(KeptTrackersTest, AnAcknowledgementOfBeforeTakesNothingAway) {
    save_and_start();
    EXPECT_EQ(served_->trackers().acknowledge("t", 1), TrackerSet::Acknowledged::yes);
    EXPECT_EQ(served_->trackers().acknowledge_up_to("t", 1, kDisk), TrackerSet::Acknowledged::yes);
    EXPECT_EQ(served_->trackers().freeze("t")->dirty_bytes, 2 * kBlock);
}

// A state directory that cannot be made is as good as a full one.
TEST_F(KeptTrackersTest, AFailureToSaveCostsTheTrackersAndNothingElse) {
    std::ofstream(state_) << "in the way";
    save();
    start(disk_);
    kept_.restore(*served_);
    EXPECT_FALSE(stands());
}

}  // namespace nbdm
