// SPDX-License-Identifier: Apache-2.0
#include "iothread/buffer_pool.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include <sys/mman.h>

namespace nbdm {

namespace {

constexpr std::size_t class_bytes(unsigned size_class) noexcept {
    return BufferPool::kMinBytes << size_class;
}

unsigned class_of(std::size_t bytes) noexcept {
    const std::size_t pages = (bytes + BufferPool::kMinBytes - 1) / BufferPool::kMinBytes;
    return static_cast<unsigned>(std::countr_zero(std::bit_ceil(std::max<std::size_t>(pages, 1))));
}

}  // namespace

std::size_t Buffer::capacity_bytes() const noexcept {
    return data_ != nullptr ? class_bytes(size_class_) : 0;
}

void Buffer::reset() noexcept {
    if (data_ != nullptr) {
        pool_->give_back({data_, ring_index_}, size_class_);
        data_ = nullptr;
        pool_ = nullptr;
    }
}

BufferPool::BufferPool(std::size_t limit_bytes, MemoryBudget::Member* budget, Ring* ring)
    : limit_bytes_(limit_bytes), budget_(budget), ring_(ring) {
    for (auto& kept : kept_) {
        kept.reserve(16);
    }
}

BufferPool::~BufferPool() {
    assert(leased_bytes_ == 0);
    trim();
}

Buffer BufferPool::lease(std::size_t bytes) noexcept {
    assert(bytes <= kMaxBytes);
    const unsigned size_class = class_of(bytes);
    const std::size_t size = class_bytes(size_class);
    if (leased_bytes_ + size > limit_bytes_) {
        return {};
    }
    Memory memory;
    if (!kept_[size_class].empty()) {
        memory = kept_[size_class].back();
        kept_[size_class].pop_back();
        kept_bytes_ -= size;
        if (budget_ != nullptr) {
            budget_->stop_waiting();  // what it waited for has come back from its own leases
        }
    } else {
        if (leased_bytes_ + kept_bytes_ + size > limit_bytes_) {
            trim();
        }
        if (!take(size)) {
            return {};
        }
        memory = map(size);
        if (memory.data == nullptr) {
            if (budget_ != nullptr) {
                budget_->give(size);
            }
            return {};
        }
    }
    leased_bytes_ += size;
    return Buffer(this, memory.data, size_class, memory.ring_index);
}

BufferPool::Memory BufferPool::map(std::size_t bytes) noexcept {
    void* mapped =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
        return {};
    }
    Memory memory{.data = static_cast<std::byte*>(mapped)};
    if (ring_ != nullptr) {
        memory.ring_index = ring_->register_memory({memory.data, bytes});
    }
    return memory;
}

// What is kept in other sizes goes first.
bool BufferPool::take(std::size_t bytes) noexcept {
    if (budget_ == nullptr || budget_->take(bytes)) {
        return true;
    }
    trim();
    return budget_->take(bytes);
}

void BufferPool::trim() noexcept {
    for (unsigned size_class = 0; size_class < kClasses; ++size_class) {
        for (const Memory& memory : kept_[size_class]) {
            if (memory.ring_index != Ring::kNotRegistered) {
                ring_->unregister_memory(memory.ring_index);
            }
            ::munmap(memory.data, class_bytes(size_class));
            if (budget_ != nullptr) {
                budget_->give(class_bytes(size_class));
            }
        }
        kept_[size_class].clear();
    }
    kept_bytes_ = 0;
}

void BufferPool::give_back(Memory memory, unsigned size_class) noexcept {
    leased_bytes_ -= class_bytes(size_class);
    kept_bytes_ += class_bytes(size_class);
    kept_[size_class].push_back(memory);
}

}  // namespace nbdm
