// SPDX-License-Identifier: Apache-2.0
#include "server/statistics.h"

#include <algorithm>
#include <bit>

namespace nbdm {

using wire::Command;

namespace {

constexpr std::size_t index_of(Command command) noexcept {
    return static_cast<std::size_t>(command);
}

}  // namespace

void Statistics::Latency::observe(std::chrono::nanoseconds time) noexcept {
    total_ns.add(static_cast<std::uint64_t>(time.count()));
    const auto us =
        static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::microseconds>(time).count());
    constexpr auto kFirst = std::bit_width(static_cast<std::uint64_t>(upper(0).count()) - 1);
    const auto width = us == 0 ? 0 : std::bit_width(us - 1);
    const auto bucket = static_cast<std::size_t>(width < kFirst ? 0 : width - kFirst);
    (bucket < kBuckets ? buckets[bucket] : above).add(1);
}

std::uint64_t Statistics::Latency::count() const noexcept {
    std::uint64_t sum = above.get();
    for (const Number& bucket : buckets) {
        sum += bucket.get();
    }
    return sum;
}

void Statistics::arrived(Command command) noexcept {
    if (index_of(command) < requests.size()) {
        requests[index_of(command)].count.add(1);
    }
}

void Statistics::succeeded(Command command, std::uint64_t bytes) noexcept {
    requests[index_of(command)].bytes.add(bytes);
}

void Statistics::failed(wire::Error error) noexcept {
    for (std::size_t i = 0; i < kErrors.size(); ++i) {
        if (kErrors[i].error == error) {
            errors[i].add(1);
        }
    }
}

void Statistics::answered(Command command, std::chrono::nanoseconds time) noexcept {
    for (std::size_t i = 0; i < kTimed.size(); ++i) {
        if (kTimed[i] == command) {
            latency[i].observe(time);
        }
    }
}

void Statistics::add(const Statistics& other) noexcept {
    for (std::size_t i = 0; i < requests.size(); ++i) {
        requests[i].count.add(other.requests[i].count.get());
        requests[i].bytes.add(other.requests[i].bytes.get());
    }
    for (std::size_t i = 0; i < latency.size(); ++i) {
        for (std::size_t bucket = 0; bucket < Latency::kBuckets; ++bucket) {
            latency[i].buckets[bucket].add(other.latency[i].buckets[bucket].get());
        }
        latency[i].above.add(other.latency[i].above.get());
        latency[i].total_ns.add(other.latency[i].total_ns.get());
    }
    for (std::size_t i = 0; i < errors.size(); ++i) {
        errors[i].add(other.errors[i].get());
    }
    in_flight.add(other.in_flight.get());
}

std::uint64_t Statistics::read_bytes() const noexcept {
    return requests[index_of(Command::read)].bytes.get();
}

std::uint64_t Statistics::written_bytes() const noexcept {
    return requests[index_of(Command::write)].bytes.get() +
           requests[index_of(Command::trim)].bytes.get() +
           requests[index_of(Command::write_zeroes)].bytes.get();
}

}  // namespace nbdm
