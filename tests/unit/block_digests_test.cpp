// SPDX-License-Identifier: Apache-2.0
#include "iothread/block_digests.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "iothread/buffer_pool.h"
#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

constexpr std::uint64_t kBlock = BlockDigests::kBlockBytes;
constexpr std::uint64_t kSeed = 7;

// Blocks: three of data, of which the first two are equal; a hole of 61; data again; and a tail of
// 1000 bytes.
class BlockDigestsTest : public testing::Test {
  protected:
    static constexpr std::uint64_t kSize = 65 * kBlock + 1000;

    BlockDigestsTest() {
        std::ofstream(path_) << block('a') << block('a') << block('b');
        std::filesystem::resize_file(path_, kSize);
        std::ofstream end(path_, std::ios::in | std::ios::ate);
        end.seekp(static_cast<std::streamoff>(64 * kBlock));
        end << block('c') << std::string(1000, 'd');
        end.close();
        file_.emplace(path_, DiskFile::Options{.writable = false, .create_bytes = {}});
        fd_ = file_->open_again();
    }
    static std::string block(char letter) { return std::string(kBlock, letter); }
    static Digest digest(const std::string& content, std::uint64_t seed = kSeed) {
        return BlockDigests::of(std::as_bytes(std::span(content)), seed);
    }
    std::vector<DigestRun> read(Range range) {
        BlockDigests digests(*file_, fd_.get(), kSeed);
        std::vector<DigestRun> runs;
        EXPECT_EQ(digests.read(range, {memory_.data(), BlockDigests::kMemoryBytes}, runs), 0);
        return runs;
    }

    TemporaryDirectory directory_;
    const std::string path_ = directory_.file("disk");
    std::optional<DiskFile> file_;
    UniqueFd fd_;
    BufferPool pool_{BufferPool::kMaxBytes};
    const Buffer memory_ = pool_.lease(BlockDigests::kMemoryBytes);
};

TEST_F(BlockDigestsTest, AreThoseOfEachBlockInItsOrder) {
    const std::vector<DigestRun> runs = read({0, kSize});
    ASSERT_FALSE(runs.empty());
    EXPECT_EQ(runs.front(), (DigestRun{{0, kBlock}, digest(block('a'))}));
    EXPECT_EQ(runs.back(), (DigestRun{{65 * kBlock, 1000}, digest(std::string(1000, 'd'))}));
    std::uint64_t at = 0;
    for (const DigestRun& run : runs) {
        EXPECT_EQ(run.range.offset, at);
        at = run.range.end();
        const char letters[] = {'a', 'a', 'b'};
        const std::uint64_t number = run.range.offset / kBlock;
        if (number < 3) {
            EXPECT_EQ(run.digest, digest(block(letters[number])));
        } else if (number < 64) {
            EXPECT_EQ(run.digest, digest(block('\0')));
        }
    }
    EXPECT_EQ(at, kSize);
}

TEST_F(BlockDigestsTest, APartOfABlockHasTheDigestOfAllOfIt) {
    EXPECT_EQ(read({kBlock + 10, 1}),
              (std::vector<DigestRun>{{{kBlock + 10, 1}, digest(block('a'))}}));
    EXPECT_EQ(read({2 * kBlock - 1, 2}),
              (std::vector<DigestRun>{{{2 * kBlock - 1, 1}, digest(block('a'))},
                                      {{2 * kBlock, 1}, digest(block('b'))}}));
    EXPECT_EQ(read({kSize - 1, 1}),
              (std::vector<DigestRun>{{{kSize - 1, 1}, digest(std::string(1000, 'd'))}}));
}

TEST_F(BlockDigestsTest, AnotherSeedMakesOthers) {
    EXPECT_NE(digest(block('a')), digest(block('a'), kSeed + 1));
    EXPECT_NE(digest(block('a')), digest(block('b')));
}

TEST_F(BlockDigestsTest, MuchDataIsNotReadAtOnceAndHolesAreNotReadAtAll) {
    const std::string path = directory_.file("large");
    std::ofstream(path) << "";
    std::filesystem::resize_file(path, std::uint64_t{1} << 40);
    const DiskFile sparse(path, {.writable = false, .create_bytes = {}});
    if (!sparse.next_extent(sparse.open_again().get(), {0, kBlock}).hole) {
        GTEST_SKIP() << "no holes here";
    }
    const UniqueFd fd = sparse.open_again();
    BlockDigests digests(sparse, fd.get(), kSeed);
    std::vector<DigestRun> runs;
    ASSERT_EQ(digests.read({0, std::uint64_t{1} << 40},
                           {memory_.data(), BlockDigests::kMemoryBytes}, runs),
              0);
    EXPECT_EQ(runs, (std::vector<DigestRun>{{{0, std::uint64_t{1} << 40}, digest(block('\0'))}}));
}

TEST_F(BlockDigestsTest, AFileThatHasBecomeShorterIsAnError) {
    std::filesystem::resize_file(path_, 64 * kBlock);
    BlockDigests digests(*file_, fd_.get(), kSeed);
    std::vector<DigestRun> runs;
    EXPECT_EQ(
        digests.read({64 * kBlock, kBlock}, {memory_.data(), BlockDigests::kMemoryBytes}, runs),
        EIO);
}

}  // namespace
}  // namespace nbdm
