// SPDX-License-Identifier: Apache-2.0
#include "iothread/disk_file.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <system_error>
#include <unistd.h>
#include <vector>

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "iothread/disk_operation.h"

namespace nbdm {

namespace {

// A directory of its own, removed with what is in it.
class DiskFileTest : public testing::TestWithParam<CacheMode> {
  protected:
    DiskFileTest() {
        std::string pattern = testing::TempDir() + "nbd-mirror-XXXXXX";
        directory_ = ::mkdtemp(pattern.data());
    }
    ~DiskFileTest() override {
        ::unlink(path().c_str());
        ::rmdir(directory_.c_str());
    }
    [[nodiscard]] std::string path() const { return directory_ + "/disk"; }
    [[nodiscard]] DiskFile make(std::uint64_t bytes, CacheMode cache = CacheMode::automatic) const {
        return DiskFile(path(), {.writable = true, .cache = cache, .create_bytes = bytes});
    }

  private:
    std::string directory_;
};

class Request final : public DiskOperation {
  public:
    int error = -1;

  private:
    void finished(int result) noexcept override { error = result; }
};

int run(Ring& ring, Request& request) {
    while (request.error < 0) {
        ring.run_once(true);
    }
    return std::exchange(request.error, -1);
}

struct AlignedMemory {
    explicit AlignedMemory(std::size_t bytes)
        : data(static_cast<std::byte*>(std::aligned_alloc(4096, align_up(bytes, 4096)))) {}
    AlignedMemory(const AlignedMemory&) = delete;
    AlignedMemory& operator=(const AlignedMemory&) = delete;
    ~AlignedMemory() { std::free(data); }
    std::byte* const data;
};

std::string text_of(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY));
    std::string text(1 << 20, '\0');
    const ssize_t count = ::read(file.get(), text.data(), text.size());
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    return text;
}

}  // namespace

TEST_F(DiskFileTest, AMissingFileIsNamedInTheError) {
    try {
        const DiskFile file(path(), {});
        FAIL();
    } catch (const std::system_error& error) {
        EXPECT_NE(std::string(error.what()).find(path()), std::string::npos);
        EXPECT_EQ(error.code().value(), ENOENT);
    }
}

TEST_F(DiskFileTest, ADirectoryIsNoDisk) {
    EXPECT_THROW(DiskFile("/tmp", DiskFile::Options{}), std::system_error);
    EXPECT_THROW(DiskFile("/dev/null", DiskFile::Options{}), std::system_error);
}

TEST_F(DiskFileTest, AnExistingFileKeepsItsSize) {
    { const DiskFile made = make(5000); }
    EXPECT_EQ(make(100).size_bytes(), 5000u);
}

TEST_F(DiskFileTest, ExtentsCoverTheDiskAndHolesAreFound) {
    DiskFile file = make(1 << 20);
    const std::string data(65536, 'x');
    ASSERT_EQ(::pwrite(file.fd(), data.data(), data.size(), 262144), 65536);
    const UniqueFd fd = file.open_again();
    EXPECT_TRUE(file.state().may_have_holes);
    std::uint64_t at = 0;
    std::uint64_t data_bytes = 0;
    while (at < file.size_bytes()) {
        const FileExtent extent = file.next_extent(fd.get(), Range::from_to(at, file.size_bytes()));
        ASSERT_EQ(extent.range.offset, at);
        ASSERT_FALSE(extent.range.empty());
        data_bytes += extent.hole ? 0 : extent.range.length;
        at = extent.range.end();
    }
    EXPECT_EQ(at, file.size_bytes());
    EXPECT_GE(data_bytes, 65536u);
    EXPECT_LT(data_bytes, 1u << 20);
}

TEST_P(DiskFileTest, ReadsBackWhatWasWritten) {
    DiskFile file = make(1 << 20, GetParam());
    Ring ring(8);
    Request request;
    const AlignedMemory out(65536);
    const AlignedMemory in(65536);
    std::fill_n(out.data, 65536, std::byte{7});
    request.write(ring, file, {131072, 65536}, out.data, /*fua=*/true);
    EXPECT_EQ(run(ring, request), 0);
    request.read(ring, file, {131072, 65536}, in.data);
    EXPECT_EQ(run(ring, request), 0);
    EXPECT_TRUE(std::equal(out.data, out.data + 65536, in.data));
    request.flush(ring, file);
    EXPECT_EQ(run(ring, request), 0);
}

TEST_P(DiskFileTest, ZeroedRangesReadAsZeroAndTheirNeighboursStay) {
    DiskFile file = make(65536, GetParam());
    {
        const std::string all(65536, 'x');
        const UniqueFd plain(::open(path().c_str(), O_WRONLY));
        ASSERT_EQ(::pwrite(plain.get(), all.data(), all.size(), 0), 65536);
    }
    Ring ring(8);
    Request request;
    for (const bool may_punch : {true, false}) {
        const std::uint64_t holes_before = file.holes_made();
        request.zero(ring, file, {5000, 10001}, {.may_punch = may_punch}, /*fua=*/true);
        ASSERT_EQ(run(ring, request), 0);
        EXPECT_TRUE(!may_punch || file.holes_made() > holes_before);
        const std::string text = text_of(path());
        EXPECT_EQ(text.substr(5000, 10001), std::string(10001, '\0'));
        EXPECT_EQ(text.substr(0, 5000), std::string(5000, 'x'));
        EXPECT_EQ(text.substr(15001), std::string(65536 - 15001, 'x'));
    }
}

TEST_P(DiskFileTest, NoHoleDoesNotDeallocate) {
    DiskFile file = make(1 << 20, GetParam());
    Ring ring(8);
    Request request;
    request.zero(ring, file, {0, 1 << 20}, {.may_punch = false}, /*fua=*/true);
    ASSERT_EQ(run(ring, request), 0);
    struct stat status {};
    ASSERT_EQ(::fstat(file.fd(), &status), 0);
    EXPECT_GE(status.st_blocks * 512, 1 << 20);
    const std::uint64_t holes_before = file.holes_made();
    request.trim(ring, file, {0, 1 << 20}, false);
    ASSERT_EQ(run(ring, request), 0);
    ASSERT_EQ(::fstat(file.fd(), &status), 0);
    EXPECT_LT(status.st_blocks * 512, 1 << 20);
    EXPECT_GT(file.holes_made(), holes_before);
}

INSTANTIATE_TEST_SUITE_P(CacheModes, DiskFileTest,
                         testing::Values(CacheMode::writeback, CacheMode::direct));

TEST_F(DiskFileTest, AFileThatShrankIsAnErrorNotShortData) {
    DiskFile file = make(65536);
    ASSERT_EQ(::truncate(path().c_str(), 4096), 0);
    Ring ring(8);
    Request request;
    const AlignedMemory in(8192);
    request.read(ring, file, {0, 8192}, in.data);
    EXPECT_EQ(run(ring, request), EIO);
}

TEST_F(DiskFileTest, UnalignedDirectWritesChangeNothingElse) {
    // 65536 - 100: the last block is cut short by the end of the file.
    DiskFile file = make(65536 - 100, CacheMode::direct);
    {
        const std::string all(65536 - 100, 'x');
        const UniqueFd plain(::open(path().c_str(), O_WRONLY));
        ASSERT_EQ(::pwrite(plain.get(), all.data(), all.size(), 0), 65436);
    }
    std::string expected(65436, 'x');
    const auto write = [&](std::uint64_t offset, std::size_t length) {
        const std::vector<std::byte> data(length, std::byte{'y'});
        ASSERT_EQ(file.write_unaligned({offset, length}, data.data()).error, 0);
        expected.replace(offset, length, std::string(length, 'y'));
    };
    write(1, 1);
    write(511, 2);
    write(5000, 9000);
    write(65436 - 10, 10);
    EXPECT_EQ(text_of(path()), expected);
    std::vector<std::byte> read(9002);
    ASSERT_EQ(file.read_unaligned({4999, 9002}, read.data()), 0);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(read.data()), read.size()),
              expected.substr(4999, 9002));
}

}  // namespace nbdm
