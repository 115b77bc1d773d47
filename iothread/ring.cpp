// SPDX-License-Identifier: Apache-2.0
#include "iothread/ring.h"

#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "iothread/check.h"

namespace nbdm {

Operation::~Operation() {
    assert(!pending_);
}

Ring::Ring(unsigned entries) {
    // Kernel 6.1 and later. SINGLE_ISSUER|DEFER_TASKRUN: completion work never interrupts this
    // thread; it is done in batches inside run_once.
    // TASKRUN_FLAG: a look at the queue without waiting can tell whether there is such work.
    const int result = io_uring_queue_init(
        entries, &ring_,
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
    if (result < 0) {
        throw errno_error(-result,
                          "cannot make an io_uring (kernel 6.1 or later is needed; "
                          "sysctl kernel.io_uring_disabled and seccomp filters forbid it)");
    }
    io_uring_ring_dontfork(&ring_);
    free_indexes_.reserve(kMaxIndexes);
}

Ring::~Ring() {
    assert(pending_ == 0);
    // The kernel takes a ring down later, in the background; the file is let go of now, so that a
    // file system can be unmounted when its disks are closed.
    if (registered_fd_ >= 0) {
        io_uring_unregister_files(&ring_);
    }
    io_uring_queue_exit(&ring_);
}

io_uring_sqe& Ring::free_entry() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
        submit(0);
        sqe = io_uring_get_sqe(&ring_);
    }
    return *sqe;
}

io_uring_sqe& Ring::next(Operation& operation) {
    assert(!operation.pending_);
    io_uring_sqe& sqe = free_entry();
    operation.pending_ = true;
    ++pending_;
    return sqe;
}

// The last step of preparing a call: whose it is, and its file by the shortest way.
void Ring::address(io_uring_sqe& sqe, Operation& operation) const noexcept {
    io_uring_sqe_set_data(&sqe, &operation);
    if (sqe.fd >= 0 && sqe.fd == registered_fd_) {
        sqe.fd = 0;  // its place among the registered files
        sqe.flags |= IOSQE_FIXED_FILE;
    }
}

void Ring::register_file(int fd) noexcept {
    assert(registered_fd_ < 0);
    if (io_uring_register_files(&ring_, &fd, 1) == 0) {
        registered_fd_ = fd;
    }
}

int Ring::register_memory(std::span<std::byte> memory) noexcept {
    if (!registers_memory_ || (free_indexes_.empty() && index_count_ == kMaxIndexes)) {
        return kNotRegistered;
    }
    const int index = free_indexes_.empty() ? static_cast<int>(index_count_) : free_indexes_.back();
    const iovec pages{memory.data(), memory.size()};
    const __u64 no_tag = 0;
    registers_memory_ =
        (index_count_ > 0 || io_uring_register_buffers_sparse(&ring_, kMaxIndexes) == 0) &&
        io_uring_register_buffers_update_tag(&ring_, static_cast<unsigned>(index), &pages, &no_tag,
                                             1) == 1;
    if (!registers_memory_) {
        return kNotRegistered;
    }
    if (free_indexes_.empty()) {
        ++index_count_;
    } else {
        free_indexes_.pop_back();
    }
    return index;
}

void Ring::unregister_memory(int index) noexcept {
    const iovec nothing{nullptr, 0};
    const __u64 no_tag = 0;
    // An index that the kernel has no memory to free is not used again.
    if (io_uring_register_buffers_update_tag(&ring_, static_cast<unsigned>(index), &nothing,
                                             &no_tag, 1) == 1) {
        free_indexes_.push_back(index);
    }
}

void Ring::read(Operation& operation, int fd, std::span<std::byte> into, std::uint64_t offset,
                int index) {
    io_uring_sqe& sqe = next(operation);
    const auto bytes = static_cast<unsigned>(into.size());
    if (index == kNotRegistered) {
        io_uring_prep_read(&sqe, fd, into.data(), bytes, offset);
    } else {
        io_uring_prep_read_fixed(&sqe, fd, into.data(), bytes, offset, index);
    }
    address(sqe, operation);
}

void Ring::write(Operation& operation, int fd, std::span<const std::byte> from,
                 std::uint64_t offset, int index) {
    io_uring_sqe& sqe = next(operation);
    const auto bytes = static_cast<unsigned>(from.size());
    if (index == kNotRegistered) {
        io_uring_prep_write(&sqe, fd, from.data(), bytes, offset);
    } else {
        io_uring_prep_write_fixed(&sqe, fd, from.data(), bytes, offset, index);
    }
    address(sqe, operation);
}

void Ring::fsync(Operation& operation, int fd, unsigned flags) {
    io_uring_sqe& sqe = next(operation);
    io_uring_prep_fsync(&sqe, fd, flags);
    address(sqe, operation);
}

void Ring::fallocate(Operation& operation, int fd, int mode, Range range) {
    io_uring_sqe& sqe = next(operation);
    io_uring_prep_fallocate(&sqe, fd, mode, static_cast<off_t>(range.offset),
                            static_cast<off_t>(range.length));
    address(sqe, operation);
}

void Ring::receive(Operation& operation, int fd, msghdr& message, unsigned flags) {
    io_uring_sqe& sqe = next(operation);
    io_uring_prep_recvmsg(&sqe, fd, &message, flags);
    address(sqe, operation);
}

void Ring::poll(Operation& operation, int fd, unsigned events) {
    io_uring_sqe& sqe = next(operation);
    io_uring_prep_poll_add(&sqe, fd, events);
    address(sqe, operation);
}

void Ring::cancel(Operation& operation) {
    if (!operation.pending_) {
        return;
    }
    io_uring_sqe& sqe = free_entry();
    io_uring_prep_cancel(&sqe, &operation, 0);
    io_uring_sqe_set_data(&sqe, nullptr);
}

void Ring::submit(unsigned wait_for, std::chrono::nanoseconds limit) {
    for (;;) {
        int result = 0;
        if (wait_for > 0 && limit.count() > 0) {
            __kernel_timespec time{};
            constexpr std::int64_t kNsPerSecond = 1'000'000'000;
            time.tv_sec = limit.count() / kNsPerSecond;
            time.tv_nsec = limit.count() % kNsPerSecond;
            io_uring_cqe* first = nullptr;
            result = io_uring_submit_and_wait_timeout(&ring_, &first, wait_for, &time, nullptr);
        } else {
            result = io_uring_submit_and_wait(&ring_, wait_for);
        }
        if (result >= 0 || result == -EINTR || result == -ETIME) {
            return;
        }
        if (result == -EAGAIN || result == -EBUSY) {
            // The kernel is short of memory, or wants completions to be reaped first.
            io_uring_get_events(&ring_);
            continue;
        }
        std::fprintf(stderr, "bug: io_uring_enter failed with errno %d\n", -result);
        std::abort();
    }
}

bool Ring::run_once(bool wait, std::chrono::nanoseconds limit) {
    submit(wait && pending_ > 0 ? 1 : 0, limit);
    // What the kernel finished is taken in one batch; what completed() submits is seen by the
    // next call, so that no completion can starve the caller's loop.
    constexpr unsigned kBatch = 64;
    io_uring_cqe* batch[kBatch];
    const unsigned count = io_uring_peek_batch_cqe(&ring_, batch, kBatch);
    struct Done {
        Operation* operation;
        int result;
    } done[kBatch];
    for (unsigned i = 0; i < count; ++i) {
        done[i] = {static_cast<Operation*>(io_uring_cqe_get_data(batch[i])), batch[i]->res};
    }
    io_uring_cq_advance(&ring_, count);
    for (unsigned i = 0; i < count; ++i) {
        if (done[i].operation == nullptr) {
            continue;  // the answer to a cancel; the cancelled operation answers for itself
        }
        assert(done[i].operation->pending_);
        done[i].operation->pending_ = false;
        --pending_;
        done[i].operation->completed(done[i].result);
    }
    return count > 0;
}

}  // namespace nbdm
