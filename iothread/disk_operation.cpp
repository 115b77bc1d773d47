// SPDX-License-Identifier: Apache-2.0
#include "iothread/disk_operation.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include <linux/falloc.h>
#include <sys/uio.h>

namespace nbdm {

namespace {

// One transfer given to the kernel; longer ones are continued. Below the kernel's own limit
// (2 GiB less a page).
constexpr std::uint64_t kMaxTransferBytes = std::uint64_t{1} << 30;

constexpr std::size_t kZeroesBytes = std::size_t{256} << 10;
alignas(4096) std::byte zeroes[kZeroesBytes];  // never written to

// "This storage cannot do that", in the words of kernels and file systems old and new.
bool is_unsupported(int error) noexcept {
    return error == EOPNOTSUPP || error == ENODEV || error == ENOSYS || error == ENOTTY;
}

}  // namespace

void DiskOperation::begin(Ring& ring, DiskFile& file, Range range, bool fua) noexcept {
    assert(!pending());
    ring_ = &ring;
    file_ = &file;
    left_ = range;
    fua_ = fua;
    into_ = nullptr;
    from_ = nullptr;
}

void DiskOperation::read(Ring& ring, DiskFile& file, Range range, std::byte* into, int ring_index) {
    begin(ring, file, range, false);
    ring_index_ = ring_index;
    into_ = into;
    step_ = Step::read;
    // What the page cache holds is copied at once, by a plain call; what it does not hold is
    // waited for in the kernel, not on this thread.
    while (!file.direct() && !left_.empty()) {
        const bool plain = file.memory_backed();
        if (!plain && !file.can_read_nowait.load(std::memory_order_relaxed)) {
            break;
        }
        const iovec memory{into_, left_.first(kMaxTransferBytes).length};
        const ssize_t count =
            ::preadv2(fd(), &memory, 1, static_cast<off_t>(left_.offset), plain ? 0 : RWF_NOWAIT);
        if (count > 0) {
            transferred(static_cast<std::uint64_t>(count));
            continue;
        }
        if (count == 0) {
            finished(EIO);  // the file is shorter than the disk it was opened as
            return;
        }
        if (errno == EOPNOTSUPP) {
            file.can_read_nowait.store(false, std::memory_order_relaxed);
        } else if (errno != EINTR && errno != EAGAIN) {
            finished(errno);
            return;
        }
        if (errno != EINTR) {
            break;
        }
    }
    transfer_rest();
}

void DiskOperation::write(Ring& ring, DiskFile& file, Range range, const std::byte* from, bool fua,
                          int ring_index) {
    begin(ring, file, range, fua);
    ring_index_ = ring_index;
    from_ = from;
    step_ = Step::write;
    // A buffered write through the ring goes to a kernel worker and costs up to 2.5 times the CPU
    // of the plain call (ARCHITECTURE.md, "What was measured, and decided"): it is done here.
    while (!file.direct() && !left_.empty()) {
        const ssize_t count = ::pwrite(fd(), from_, left_.first(kMaxTransferBytes).length,
                                       static_cast<off_t>(left_.offset));
        if (count > 0) {
            transferred(static_cast<std::uint64_t>(count));
        } else if (count == 0) {
            finished(EIO);
            return;
        } else if (errno != EINTR) {
            finished(errno);
            return;
        }
    }
    transfer_rest();
}

void DiskOperation::zero(Ring& ring, DiskFile& file, Range range, ZeroMode mode, bool fua) {
    begin(ring, file, range, fua);
    mode_ = mode;
    step_ = Step::write_zeroes;
    // A block device zeroes whole sectors. With the parts of some at the ends written here, through
    // the page cache, the rest need not be.
    const Range sectors = whole_units(range, file.zeroing_alignment());
    if (!file.direct() && !mode.fast_only && !sectors.empty() && sectors != range) {
        const Range ends[] = {Range::from_to(range.offset, sectors.offset),
                              Range::from_to(sectors.end(), range.end())};
        for (const Range end : ends) {
            if (const int error = write_zeroes_now(end); error != 0) {
                finished(error);
                return;
            }
        }
        left_ = sectors;
    }
    submit(first_zero_step());
}

void DiskOperation::trim(Ring& ring, DiskFile& file, Range range, bool fua) {
    const std::uint32_t unit = file.zeroing_alignment();
    const Range sectors =
        Range::from_to(align_up(range.offset, unit), align_down(range.end(), unit));
    begin(ring, file, sectors, fua);
    if (!sectors.empty() && file.can_punch.load(std::memory_order_relaxed)) {
        submit(Step::trim);
    } else {
        changed();
    }
}

void DiskOperation::flush(Ring& ring, DiskFile& file) {
    begin(ring, file, {}, false);
    submit(Step::sync);
}

// `range` is shorter than kZeroesBytes. 0 or errno.
int DiskOperation::write_zeroes_now(Range range) const noexcept {
    while (!range.empty()) {
        const ssize_t count =
            ::pwrite(fd(), zeroes, range.length, static_cast<off_t>(range.offset));
        if (count > 0) {
            range = range.after(static_cast<std::uint64_t>(count));
        } else if (count == 0 || errno != EINTR) {
            return count == 0 ? EIO : errno;
        }
    }
    return 0;
}

DiskOperation::Step DiskOperation::first_zero_step() const noexcept {
    const std::uint32_t unit = file_->zeroing_alignment();
    const bool sector_aligned = is_aligned(left_.offset, unit) && is_aligned(left_.length, unit);
    const bool can_punch = sector_aligned && file_->can_punch.load(std::memory_order_relaxed);
    // A block device that cannot zero by itself is zeroed by the kernel with writes here.
    const bool can_zero_range = sector_aligned && !(mode_.fast_only && file_->is_block_device()) &&
                                file_->can_zero_range.load(std::memory_order_relaxed);
    if (mode_.may_punch && can_punch) {
        return Step::punch;
    }
    if (can_zero_range) {
        return Step::zero_range;
    }
    // Files only: a block device has nothing to allocate. Not when it must be fast: when the
    // allocation is refused the hole is made already.
    if (!mode_.may_punch && !mode_.fast_only && can_punch && !file_->is_block_device()) {
        return Step::punch_to_allocate;
    }
    return Step::write_zeroes;
}

void DiskOperation::submit(Step step) {
    step_ = step;
    switch (step) {
        case Step::punch:
        case Step::punch_to_allocate:
        case Step::trim:
            ring_->fallocate(*this, fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, left_);
            break;
        case Step::zero_range:
            ring_->fallocate(*this, fd(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, left_);
            break;
        case Step::allocate:
            ring_->fallocate(*this, fd(), FALLOC_FL_KEEP_SIZE, left_);
            break;
        case Step::write_zeroes:
            if (mode_.fast_only) {
                finished(ENOTSUP);
            } else {
                transfer_rest();
            }
            break;
        case Step::sync:
            ring_->fsync(*this, sync_fd_ >= 0 ? sync_fd_ : fd(), IORING_FSYNC_DATASYNC);
            break;
        case Step::read:
        case Step::write:
            transfer_rest();
            break;
    }
}

void DiskOperation::transferred(std::uint64_t bytes) noexcept {
    left_ = left_.after(bytes);
    if (step_ == Step::read) {
        into_ += bytes;
    } else if (step_ == Step::write) {
        from_ += bytes;
    }
}

void DiskOperation::transfer_rest() {
    const std::uint64_t bytes = left_.first(kMaxTransferBytes).length;
    if (bytes == 0) {
        changed();
    } else if (step_ == Step::read) {
        ring_->read(*this, fd(), {into_, bytes}, left_.offset, ring_index_);
    } else if (step_ == Step::write) {
        ring_->write(*this, fd(), {from_, bytes}, left_.offset, ring_index_);
    } else {
        ring_->write(*this, fd(), {zeroes, std::min<std::uint64_t>(bytes, kZeroesBytes)},
                     left_.offset);
    }
}

void DiskOperation::completed(int result) noexcept {
    switch (step_) {
        case Step::read:
        case Step::write:
        case Step::write_zeroes:
            transfer_completed(result);
            break;
        case Step::punch:
        case Step::punch_to_allocate:
        case Step::zero_range:
        case Step::allocate:
        case Step::trim:
            zero_completed(result);
            break;
        case Step::sync:
            if (result == -EINTR || result == -EAGAIN) {
                submit(step_);
            } else {
                finished(-std::min(result, 0));
            }
            break;
    }
}

void DiskOperation::transfer_completed(int result) {
    if (result == -EAGAIN || result == -EINTR) {
        transfer_rest();
    } else if (result < 0) {
        finished(-result);
    } else if (result == 0) {
        finished(EIO);  // the file is shorter than the disk it was opened as
    } else {
        transferred(static_cast<std::uint64_t>(result));
        transfer_rest();
    }
}

void DiskOperation::zero_completed(int result) {
    if (result == -EINTR || result == -EAGAIN) {
        submit(step_);
        return;
    }
    // Whatever the result: a part may be one.
    file_->note_hole();
    if (result >= 0) {
        if (step_ == Step::punch_to_allocate) {
            submit(Step::allocate);
        } else {
            changed();
        }
        return;
    }
    if (!is_unsupported(-result)) {
        finished(-result);
        return;
    }
    switch (step_) {
        case Step::punch:
        case Step::punch_to_allocate:
            file_->can_punch.store(false, std::memory_order_relaxed);
            submit(first_zero_step());
            break;
        case Step::zero_range:
            file_->can_zero_range.store(false, std::memory_order_relaxed);
            submit(first_zero_step());
            break;
        case Step::trim:
            file_->can_punch.store(false, std::memory_order_relaxed);
            changed();
            break;
        default:
            submit(Step::write_zeroes);  // allocation is not to be had
            break;
    }
}

// The data is where it should be; durable if that was asked for.
void DiskOperation::changed() {
    if (fua_) {
        submit(Step::sync);
    } else {
        finished(0);
    }
}

}  // namespace nbdm
