// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <sys/socket.h>

#include <liburing.h>

#include "iothread/range.h"

namespace nbdm {

// One thing in the kernel. Whoever derives from it owns the memory the kernel points at and keeps
// both alive until completed() has been called; destroying a pending operation is a bug and
// asserts. Pinned: the kernel holds its address.
class Operation {
  public:
    Operation() = default;
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;

    [[nodiscard]] bool pending() const noexcept { return pending_; }

  protected:
    ~Operation();

  private:
    friend class Ring;
    // Called by Ring::run_once on the ring's thread; `result` is the kernel's: a count, or a
    // negative errno. The operation is no longer pending and may be submitted again from here.
    virtual void completed(int result) noexcept = 0;

    bool pending_ = false;
};

// One io_uring, made with SINGLE_ISSUER|DEFER_TASKRUN: it is constructed, used and destroyed on
// one thread, and the kernel's completion work runs on that thread inside run_once() only.
//
// Threads: the one that constructed it.
// Fails:   the constructor throws std::system_error; a preparing call never fails, what goes wrong
//          arrives as a completion.
class Ring {
  public:
    explicit Ring(unsigned entries);
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;
    ~Ring();  // asserts that nothing is pending

    // Operations on this file look it up once, here, instead of each time. It stays open as long as
    // the ring. A wish: all works without it, for more CPU. Not for sockets: kernels up to 6.12
    // hold on to unregistered memory while any operation on a registered file is under way, and a
    // receive may be for days.
    void register_file(int fd) noexcept;

    // The pages of `memory` are looked up and held once, here, instead of by each direct read or
    // write that names the index. kNotRegistered: the kernel does not want to (its limit of locked
    // memory), or too many are.
    static constexpr int kNotRegistered = -1;
    [[nodiscard]] int register_memory(std::span<std::byte> memory) noexcept;
    // Nothing is under way in it; it may be unmapped afterwards.
    void unregister_memory(int index) noexcept;

    // `index`: what register_memory() gave for the memory that this is a part of.
    void read(Operation& operation, int fd, std::span<std::byte> into, std::uint64_t offset,
              int index = kNotRegistered);
    void write(Operation& operation, int fd, std::span<const std::byte> from, std::uint64_t offset,
               int index = kNotRegistered);
    // `flags` is 0 or IORING_FSYNC_DATASYNC.
    void fsync(Operation& operation, int fd, unsigned flags);
    void fallocate(Operation& operation, int fd, int mode, Range range);
    // The message, its iovecs and the memory behind them stay valid until completion.
    void receive(Operation& operation, int fd, msghdr& message, unsigned flags);
    // Completes once, with the events that came.
    void poll(Operation& operation, int fd, unsigned events);
    // Asks the kernel to end `operation`, which still completes by itself (with -ECANCELED, or
    // with its result when it was faster). Does nothing when it is not pending.
    void cancel(Operation& operation);

    // Submits what was prepared, waits for at least one completion (when `wait`), and calls
    // completed() for each one that is there. Nothing is dispatched recursively.
    // `limit`: the longest wait; none when it is zero. Returns whether anything had completed.
    bool run_once(bool wait, std::chrono::nanoseconds limit = {});

    [[nodiscard]] unsigned pending() const noexcept { return pending_; }

  private:
    // Buffers that are registered at a time; those beyond are used all the same, unregistered.
    static constexpr unsigned kMaxIndexes = 256;

    io_uring_sqe& free_entry();
    io_uring_sqe& next(Operation& operation);
    void address(io_uring_sqe& sqe, Operation& operation) const noexcept;
    void submit(unsigned wait_for, std::chrono::nanoseconds limit = {});

    io_uring ring_{};
    unsigned pending_ = 0;
    int registered_fd_ = -1;
    bool registers_memory_ = true;  // until the kernel refuses
    unsigned index_count_ = 0;      // indexes that were ever used
    std::vector<int> free_indexes_;
};

}  // namespace nbdm
