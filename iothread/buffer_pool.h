// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "iothread/memory_budget.h"
#include "iothread/ring.h"

namespace nbdm {

class BufferPool;

// A lease of page-aligned memory; returned to its pool when it is destroyed. The pool outlives
// every lease. An empty lease (data() == nullptr) means that the pool had nothing to give.
class Buffer {
  public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          data_(std::exchange(other.data_, nullptr)),
          size_class_(other.size_class_),
          ring_index_(other.ring_index_) {}
    Buffer& operator=(Buffer&& other) noexcept {
        if (this != &other) {
            reset();
            pool_ = std::exchange(other.pool_, nullptr);
            data_ = std::exchange(other.data_, nullptr);
            size_class_ = other.size_class_;
            ring_index_ = other.ring_index_;
        }
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { reset(); }

    [[nodiscard]] std::byte* data() const noexcept { return data_; }
    explicit operator bool() const noexcept { return data_ != nullptr; }
    [[nodiscard]] std::size_t capacity_bytes() const noexcept;
    // Of the memory in the ring that the pool was made for.
    [[nodiscard]] int ring_index() const noexcept { return ring_index_; }
    void reset() noexcept;

  private:
    friend class BufferPool;
    Buffer(BufferPool* pool, std::byte* data, unsigned size_class, int ring_index) noexcept
        : pool_(pool), data_(data), size_class_(size_class), ring_index_(ring_index) {}

    BufferPool* pool_ = nullptr;
    std::byte* data_ = nullptr;
    unsigned size_class_ = 0;
    int ring_index_ = Ring::kNotRegistered;
};

// Page-aligned memory for the I/O of one thread, in classes of a power of two from 4 KiB to
// 64 MiB. Freed memory is kept and given out again, last in first out, so that a steady load
// touches the same warm pages and asks the kernel for nothing.
//
// Threads: the owner's iothread only.
// Limits:  at most `limit_bytes` are out or kept at any time, and no more than the budget, if there
//          is one, has for all pools; lease() then returns an empty Buffer, and the caller stops
//          receiving until something comes back or the budget wakes its thread.
class BufferPool {
  public:
    static constexpr std::size_t kMinBytes = 4096;
    static constexpr std::size_t kMaxBytes = std::size_t{64} << 20;

    // `ring`: its direct I/O uses the memory, which is registered there. Both outlive the pool.
    explicit BufferPool(std::size_t limit_bytes, MemoryBudget::Member* budget = nullptr,
                        Ring* ring = nullptr);
    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;
    ~BufferPool();  // asserts that every lease has come back

    // `bytes` is at most kMaxBytes. The memory is not cleared.
    [[nodiscard]] Buffer lease(std::size_t bytes) noexcept;

    // Gives what is kept back to the kernel.
    void trim() noexcept;

    [[nodiscard]] std::size_t leased_bytes() const noexcept { return leased_bytes_; }
    [[nodiscard]] std::size_t kept_bytes() const noexcept { return kept_bytes_; }

  private:
    friend class Buffer;
    static constexpr unsigned kClasses = 15;  // 4 KiB << 14 = 64 MiB
    struct Memory {
        std::byte* data = nullptr;
        int ring_index = Ring::kNotRegistered;
    };
    void give_back(Memory memory, unsigned size_class) noexcept;
    [[nodiscard]] Memory map(std::size_t bytes) noexcept;

    [[nodiscard]] bool take(std::size_t bytes) noexcept;

    const std::size_t limit_bytes_;
    MemoryBudget::Member* const budget_;
    Ring* const ring_;
    std::size_t leased_bytes_ = 0;
    std::size_t kept_bytes_ = 0;
    std::array<std::vector<Memory>, kClasses> kept_;
};

}  // namespace nbdm
