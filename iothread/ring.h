// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

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

    void read(Operation& operation, int fd, std::span<std::byte> into, std::uint64_t offset);
    void write(Operation& operation, int fd, std::span<const std::byte> from, std::uint64_t offset);
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
    bool run_once(bool wait, std::chrono::milliseconds limit = {});

    [[nodiscard]] unsigned pending() const noexcept { return pending_; }

  private:
    io_uring_sqe& next(Operation& operation);
    void submit(unsigned wait_for, std::chrono::milliseconds limit = {});

    io_uring ring_{};
    unsigned pending_ = 0;
};

}  // namespace nbdm
