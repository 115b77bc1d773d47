// SPDX-License-Identifier: Apache-2.0
#include "iothread/extent_memory.h"

#include <array>
#include <fcntl.h>
#include <fstream>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kMib = 1 << 20;

// Data in the first and the third of four MiB.
class ExtentMemoryTest : public testing::Test {
  protected:
    ExtentMemoryTest() {
        std::ofstream(path_) << "";
        std::filesystem::resize_file(path_, 4 * kMib);
        file_.emplace(path_, DiskFile::Options{.writable = true, .create_bytes = {}});
        fd_ = file_->open_again();
        memory_.emplace(*file_, fd_.get());
        write(0);
        write(2 * kMib);
    }
    void write(std::uint64_t offset) {
        const std::string data(kMib, 'x');
        ASSERT_EQ(::pwrite(file_->fd(), data.data(), data.size(), static_cast<off_t>(offset)),
                  static_cast<ssize_t>(data.size()));
    }
    void punch(std::uint64_t offset) {
        if (::fallocate(file_->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(offset), kMib) != 0) {
            GTEST_SKIP() << "no holes here";
        }
    }
    [[nodiscard]] FileExtent ask(Range within, milliseconds at) {
        return memory_->next_extent(within,
                                    ExtentMemory::Clock::time_point{std::chrono::hours(1)} + at);
    }

    TemporaryDirectory directory_;
    const std::string path_ = directory_.file("disk");
    std::optional<DiskFile> file_;
    UniqueFd fd_;
    std::optional<ExtentMemory> memory_;
};

TEST_F(ExtentMemoryTest, TellsWhatTheFileSystemDoes) {
    for (const std::uint64_t offset : {0 * kMib, 1 * kMib, 2 * kMib, 3 * kMib}) {
        const FileExtent whole = ask({offset, 4 * kMib - offset}, milliseconds(0));
        EXPECT_EQ(whole.range, (Range{offset, kMib})) << offset;
        EXPECT_EQ(whole.hole, offset % (2 * kMib) != 0) << offset;
        const FileExtent part = ask({offset + 4096, 8192}, milliseconds(0));
        EXPECT_EQ(part.range, (Range{offset + 4096, 8192})) << offset;
        EXPECT_EQ(part.hole, whole.hole) << offset;
    }
}

TEST_F(ExtentMemoryTest, DataIsRememberedForAWhile) {
    EXPECT_FALSE(ask({0, 4096}, milliseconds(0)).hole);
    punch(0);
    EXPECT_FALSE(ask({8192, 4096}, milliseconds(9999)).hole);
    EXPECT_TRUE(ask({8192, 4096}, milliseconds(10'000)).hole);
}

TEST_F(ExtentMemoryTest, AHoleThatIsMadeThroughTheFileIsSeenAtOnce) {
    EXPECT_FALSE(ask({0, 4096}, milliseconds(0)).hole);
    punch(0);
    file_->note_hole();
    EXPECT_TRUE(ask({8192, 4096}, milliseconds(0)).hole);
}

TEST_F(ExtentMemoryTest, AHoleIsNotRemembered) {
    EXPECT_TRUE(ask({kMib, 4096}, milliseconds(0)).hole);
    write(kMib);
    EXPECT_FALSE(ask({kMib, 4096}, milliseconds(0)).hole);
}

}  // namespace
}  // namespace nbdm
