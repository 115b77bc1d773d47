// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/nbd_wire.h"

namespace nbdm {

// What was asked of one connection, or of all connections of an export together, and how it went.
//
// Threads: one changes it (the connection's iothread; the main thread for a sum), any may read.
//          No locked instruction: the one that changes a number is the only one that does.
class Statistics {
  public:
    class Number {
      public:
        void add(std::uint64_t more) noexcept { set(get() + more); }
        void set(std::uint64_t value) noexcept { value_.store(value, std::memory_order_relaxed); }
        [[nodiscard]] std::uint64_t get() const noexcept {
            return value_.load(std::memory_order_relaxed);
        }

      private:
        std::atomic<std::uint64_t> value_{0};
    };

    // Of one command.
    struct Requests {
        Number count;
        Number bytes;  // of those that succeeded
    };

    // How long requests took, from their arrival to the moment their reply goes to the socket. A
    // bucket counts what took at most upper(i) and more than the bucket before it.
    class Latency {
      public:
        static constexpr std::size_t kBuckets = 22;
        [[nodiscard]] static constexpr std::chrono::microseconds upper(
            std::size_t bucket) noexcept {
            return std::chrono::microseconds(std::int64_t{8} << bucket);  // 8 us to 16.8 s
        }
        void observe(std::chrono::nanoseconds time) noexcept;
        [[nodiscard]] std::uint64_t count() const noexcept;

        std::array<Number, kBuckets> buckets;
        Number above;
        Number total_ns;
    };

    // Commands as they are called in reports, in the order of their numbers; empty: none.
    static constexpr std::array<std::string_view, 8> kCommands = {
        "read", "write", "", "flush", "trim", "cache", "write_zeroes", "block_status"};
    // The commands whose latency is measured.
    static constexpr std::array<wire::Command, 3> kTimed = {
        wire::Command::read, wire::Command::write, wire::Command::flush};
    struct ErrorName {
        wire::Error error;
        std::string_view name;
    };
    static constexpr std::array<ErrorName, 8> kErrors = {{{wire::Error::perm, "EPERM"},
                                                          {wire::Error::io, "EIO"},
                                                          {wire::Error::no_memory, "ENOMEM"},
                                                          {wire::Error::invalid, "EINVAL"},
                                                          {wire::Error::no_space, "ENOSPC"},
                                                          {wire::Error::overflow, "EOVERFLOW"},
                                                          {wire::Error::not_supported, "ENOTSUP"},
                                                          {wire::Error::shutdown, "ESHUTDOWN"}}};

    void arrived(wire::Command command) noexcept;
    void succeeded(wire::Command command, std::uint64_t bytes) noexcept;
    void failed(wire::Error error) noexcept;
    void answered(wire::Command command, std::chrono::nanoseconds time) noexcept;
    void add(const Statistics& other) noexcept;

    [[nodiscard]] std::uint64_t read_bytes() const noexcept;
    [[nodiscard]] std::uint64_t written_bytes() const noexcept;  // zeroed and trimmed ones too

    std::array<Requests, kCommands.size()> requests;
    std::array<Latency, kTimed.size()> latency;
    std::array<Number, kErrors.size()> errors;
    Number in_flight;
};

}  // namespace nbdm
