// SPDX-License-Identifier: Apache-2.0
#include "iothread/disk_file.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <unistd.h>
#include <utility>

#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "iothread/check.h"
#include "iothread/disk_place.h"
#include "iothread/image_lock.h"

namespace nbdm {

namespace {

// The unit of stat's st_blocks.
constexpr std::uint64_t kStatBlockBytes = 512;

// Memory for what is not aligned, whatever the request's size.
constexpr std::uint64_t kStepBytes = std::uint64_t{1} << 20;

struct FreeDeleter {
    void operator()(std::byte* memory) const noexcept { std::free(memory); }
};
using AlignedMemory = std::unique_ptr<std::byte[], FreeDeleter>;

std::size_t page_bytes() noexcept {
    static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return bytes;
}

// Null when there is none.
AlignedMemory allocate_aligned(std::size_t bytes) noexcept {
    void* memory = std::aligned_alloc(page_bytes(), align_up(bytes, page_bytes()));
    return AlignedMemory(static_cast<std::byte*>(memory));
}

// Transfers all of it; end of file is EIO, since the disk's size was promised to the client.
template <typename Call>
int transfer(Call call, Range range) {
    while (!range.empty()) {
        const ssize_t count = call(range);
        if (count < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno;
        }
        if (count == 0) {
            return EIO;
        }
        range = range.after(static_cast<std::uint64_t>(count));
    }
    return 0;
}

// What storage says need not be a power of two: a stripe over three disks is not.
std::uint32_t preferred_size(std::uint64_t bytes) noexcept {
    constexpr std::uint64_t kMin = 4 << 10;
    constexpr std::uint64_t kMax = 32 << 20;
    return static_cast<std::uint32_t>(std::bit_floor(std::clamp(bytes, kMin, kMax)));
}

// 0 stands for a device that does not say.
std::uint32_t preferred_of_device(int fd) noexcept {
    unsigned optimal = 0;
    unsigned minimal = 0;
    unsigned physical = 0;
    ::ioctl(fd, BLKIOOPT, &optimal);
    ::ioctl(fd, BLKIOMIN, &minimal);
    ::ioctl(fd, BLKPBSZGET, &physical);
    return preferred_size(std::max({optimal, minimal, physical}));
}

int write_fully(int fd, Range range, const std::byte* from) {
    const std::uint64_t begin = range.offset;
    return transfer(
        [&](Range left) {
            return ::pwrite(fd, from + (left.offset - begin), left.length,
                            static_cast<off_t>(left.offset));
        },
        range);
}

}  // namespace

DiskFile::DiskFile(std::string path, const Options& options)
    : path_(std::move(path)), writable_(options.writable) {
    open(options);
    learn_storage();
    lock(options.others_may_write);
}

void DiskFile::open(const Options& options) {
    const std::string what =
        "cannot open '" + path_ + "' for " + (writable_ ? "writing" : "reading");
    // O_NONBLOCK: a named pipe is refused, not waited for. learn_storage() takes it off again.
    const int access = (writable_ ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
    const int cache = options.cache == CacheMode::direct ? O_DIRECT : 0;
    fd_ = UniqueFd(::open(path_.c_str(), access | cache));
    if (!fd_.valid() && errno == ENOENT && options.create_bytes) {
        // O_EXCL: only a file made here is given its size; for writing, whatever it is served for.
        UniqueFd made(
            check_errno(::open(path_.c_str(), O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600),
                        "cannot create '" + path_ + "'"));
        if (::ftruncate(made.get(), static_cast<off_t>(*options.create_bytes)) < 0) {
            const int error = errno;
            ::unlink(path_.c_str());
            throw errno_error(error, "cannot give '" + path_ + "' its size");
        }
        created_ = true;
        fd_ = UniqueFd(::open(path_.c_str(), access | cache));
        if (!fd_.valid()) {
            const int error = errno;
            ::unlink(path_.c_str());
            errno = error;
        }
    }
    if (!fd_.valid()) {
        const int error = errno;
        throw errno_error(error, error == EINVAL && cache != 0
                                     ? what + " without the page cache (cache=direct)"
                                     : what);
    }
    direct_ = cache != 0;
}

void DiskFile::learn_storage() {
    struct stat status {};
    check_errno(::fstat(fd_.get(), &status), "cannot examine '" + path_ + "'");
    if (S_ISDIR(status.st_mode)) {
        throw errno_error(EISDIR, "cannot use '" + path_ + "' as a disk");
    }
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
        throw errno_error(
            EINVAL, "cannot use '" + path_ + "' as a disk: neither a file nor a block device");
    }
    // io_uring lets operations on a non-blocking file fail with EAGAIN, of disks too.
    const int flags = check_errno(::fcntl(fd_.get(), F_GETFL), "cannot examine '" + path_ + "'");
    check_errno(::fcntl(fd_.get(), F_SETFL, flags & ~O_NONBLOCK), "cannot use '" + path_ + "'");
    place_ = place_of(fd_.get());
    is_block_device_ = S_ISBLK(status.st_mode);
    std::uint32_t sector_bytes = 512;
    if (is_block_device_) {
        int logical = 0;
        check_errno(::ioctl(fd_.get(), BLKSSZGET, &logical),
                    "cannot learn the sector size of '" + path_ + "'");
        sector_bytes = static_cast<std::uint32_t>(logical);
        zeroing_alignment_ = sector_bytes;
        preferred_bytes_ = preferred_of_device(fd_.get());
    } else {
        preferred_bytes_ = preferred_size(static_cast<std::uint64_t>(status.st_blksize));
        struct statfs filesystem {};
        memory_backed_ = ::fstatfs(fd_.get(), &filesystem) == 0 && filesystem.f_type == TMPFS_MAGIC;
#ifdef STATX_DIOALIGN
        struct statx alignment {};
        if (direct_ && ::statx(fd_.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &alignment) == 0 &&
            alignment.stx_dio_offset_align > 0) {
            sector_bytes = alignment.stx_dio_offset_align;
        }
#else
        // Larger than any file system asks for when it cannot be asked.
        sector_bytes = 4096;
#endif
    }
    request_alignment_ = direct_ ? sector_bytes : 1;
    size_bytes_ = stored_bytes();
}

std::uint64_t DiskFile::stored_bytes() const {
    const std::string what = "cannot learn the size of '" + path_ + "'";
    if (is_block_device_) {
        std::uint64_t bytes = 0;
        check_errno(::ioctl(fd_.get(), BLKGETSIZE64, &bytes), what);
        return bytes;
    }
    struct stat status {};
    check_errno(::fstat(fd_.get(), &status), what);
    return static_cast<std::uint64_t>(status.st_size);
}

void DiskFile::lock(bool others_may_write) const {
    const ImageUse use = writable_          ? ImageUse::write
                         : others_may_write ? ImageUse::read_anything
                                            : ImageUse::read;
    if (!lock_image(fd_.get(), path_, use)) {
        throw errno_error(EBUSY, "cannot use '" + path_ + "' for " +
                                     (writable_ ? "writing" : "reading") +
                                     ", since another program uses it (a virtual machine, "
                                     "qemu-nbd, another nbd-mirror-server)");
    }
}

UniqueFd DiskFile::open_again() const {
    // By descriptor, not by path: the path may name another file by now.
    const std::string link = "/proc/self/fd/" + std::to_string(fd_.get());
    const int access =
        (writable_ && !is_block_device_ ? O_RDWR : O_RDONLY) | (direct_ ? O_DIRECT : 0);
    return UniqueFd(
        check_errno(::open(link.c_str(), access | O_CLOEXEC), "cannot reopen '" + path_ + "'"));
}

FileExtent DiskFile::next_extent(int fd, Range within) const noexcept {
    const FileExtent all_data{within, false};
    // tmpfs would look at every page for the next hole: 28 ms for 2 GiB (measured 2026-11-27). It
    // counts its blocks exactly, but for huge pages, and those that are reserved and not written.
    if (is_block_device_ || (memory_backed_ && !state().may_have_holes)) {
        return all_data;
    }
    const off_t begin = static_cast<off_t>(within.offset);
    const off_t data = ::lseek(fd, begin, SEEK_DATA);
    if (data < 0) {
        // ENXIO: no data up to the end of the file, which may have become shorter than the disk:
        // what is missing does not read as zero, it does not read.
        struct stat status {};
        const bool whole = errno == ENXIO && ::fstat(fd, &status) == 0 &&
                           static_cast<std::uint64_t>(status.st_size) >= size_bytes();
        return whole ? FileExtent{within, true} : all_data;
    }
    if (data > begin) {
        return {within.first(static_cast<std::uint64_t>(data - begin)), true};
    }
    const off_t hole = ::lseek(fd, begin, SEEK_HOLE);
    // hole == begin: a hole was punched between the two calls; data is always a correct answer.
    return hole <= begin
               ? all_data
               : FileExtent{within.first(static_cast<std::uint64_t>(hole - begin)), false};
}

std::unique_lock<std::mutex> DiskFile::take_write_turn() {
    return direct_ ? std::unique_lock<std::mutex>() : std::unique_lock(write_turn_);
}

DiskFile::State DiskFile::state() const noexcept {
    if (is_block_device_) {
        return {};
    }
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) {
        return {.shorter = true};
    }
    return {.shorter = static_cast<std::uint64_t>(status.st_size) < size_bytes(),
            .may_have_holes =
                static_cast<std::uint64_t>(status.st_blocks) * kStatBlockBytes < size_bytes()};
}

std::optional<DiskFile::Space> DiskFile::space() const noexcept {
    struct stat status {};
    struct statvfs filesystem {};
    if (is_block_device_ || ::fstat(fd_.get(), &status) != 0 ||
        ::fstatvfs(fd_.get(), &filesystem) != 0) {
        return std::nullopt;
    }
    const auto allocated = static_cast<std::uint64_t>(status.st_blocks) * kStatBlockBytes;
    return Space{.allocated_bytes = allocated,
                 .room_bytes = allocated + std::uint64_t{filesystem.f_bavail} *
                                               std::uint64_t{filesystem.f_frsize}};
}

bool DiskFile::is_resident(Range range) const noexcept {
    if (memory_backed_) {
        return true;
    }
    if (direct_) {
        return false;
    }
    // cachestat(2), since Linux 6.5, has no wrapper in Debian 12's C library.
    struct CachestatRange {
        std::uint64_t offset;
        std::uint64_t length;
    } asked{range.offset, range.length};
    struct Cachestat {
        std::uint64_t cached;
        std::uint64_t rest[4];
    } answer{};
    constexpr long kCachestat = 451;
    const std::uint64_t page = page_bytes();
    const std::uint64_t pages =
        (align_up(range.end(), page) - align_down(range.offset, page)) / page;
    return ::syscall(kCachestat, fd_.get(), &asked, &answer, 0) == 0 && answer.cached >= pages;
}

int DiskFile::read_blocks(int fd, Range range, std::byte* into) const {
    const Range blocks{range.offset, align_up(range.length, request_alignment_)};
    std::uint64_t done = 0;
    return transfer(
        [&](Range) -> ssize_t {
            const Range left = blocks.after(done);
            const ssize_t count =
                ::pread(fd, into + done, left.length, static_cast<off_t>(left.offset));
            done += static_cast<std::uint64_t>(std::max<ssize_t>(count, 0));
            return count;
        },
        range);
}

int DiskFile::read_unaligned(Range range, std::byte* into) const {
    const AlignedMemory memory = allocate_aligned(kStepBytes);
    if (!memory) {
        return ENOMEM;
    }
    const std::uint64_t size = size_bytes();
    while (!range.empty()) {
        const std::uint64_t begin = align_down(range.offset, request_alignment_);
        const std::uint64_t end = std::min(range.end(), begin + kStepBytes);
        const Range blocks =
            Range::from_to(begin, std::min(align_up(end, request_alignment_), size));
        if (const int error = read_blocks(fd_.get(), blocks, memory.get()); error != 0) {
            return error;
        }
        std::memcpy(into, memory.get() + (range.offset - begin), end - range.offset);
        into += end - range.offset;
        range = range.after(end - range.offset);
    }
    return 0;
}

DiskFile::Written DiskFile::write_unaligned(Range range, const std::byte* from) const {
    const AlignedMemory memory = allocate_aligned(kStepBytes);
    if (!memory) {
        return {.error = ENOMEM};
    }
    const std::uint64_t size = size_bytes();
    while (!range.empty()) {
        const std::uint64_t begin = align_down(range.offset, request_alignment_);
        const std::uint64_t end = std::min(range.end(), begin + kStepBytes);
        const Range part = Range::from_to(range.offset, end);
        const Range blocks = Range::from_to(begin, align_up(end, request_alignment_));
        std::memset(memory.get(), 0, blocks.length);
        const Range stored = Range::from_to(begin, std::min(blocks.end(), size));
        if (int error = read_blocks(fd_.get(), stored, memory.get()); error != 0) {
            return {.error = error};
        }
        std::byte* changed = memory.get() + (part.offset - begin);
        if (from != nullptr) {
            std::memcpy(changed, from, part.length);
            from += part.length;
        } else {
            std::memset(changed, 0, part.length);
        }
        if (blocks.end() > size) {
            // O_DIRECT cannot write the odd end of a file; the page cache can, and the caller
            // keeps all others away. It is written out at once so that later direct writes meet
            // no dirty page.
            const UniqueFd buffered = open_buffered();
            if (!buffered.valid()) {
                return {.error = errno};
            }
            if (int error = write_fully(buffered.get(), stored, memory.get()); error != 0) {
                return {.error = error};
            }
            if (::fdatasync(buffered.get()) < 0) {
                return {.error = errno, .lost_write_back = true};
            }
        } else if (int error = write_fully(fd_.get(), blocks, memory.get()); error != 0) {
            return {.error = error};
        }
        range = range.after(part.length);
    }
    return {};
}

UniqueFd DiskFile::open_buffered() const {
    const std::string link = "/proc/self/fd/" + std::to_string(fd_.get());
    return UniqueFd(::open(link.c_str(), O_RDWR | O_CLOEXEC));
}

}  // namespace nbdm
