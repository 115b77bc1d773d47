// SPDX-License-Identifier: Apache-2.0
#include "client/session.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <utility>

namespace nbdm {

namespace {

// Of an id, at an nbd-mirror-server.
constexpr std::size_t kMaxIdBytes = 64;

std::string random_digits() {
    std::random_device random;
    char digits[9];
    std::snprintf(digits, sizeof(digits), "%08x", random());
    return digits;
}

}  // namespace

Session::Session(const std::string& job) {
    const std::string digits = random_digits();
    id_ = job.substr(0, kMaxIdBytes - 1 - digits.size()) + "-" + digits;
}

std::string Session::next_context() {
    return "nbd-mirror:session:" + id_ + ":" + std::to_string(next_epoch());
}

std::string Session::next_commit_context() {
    return "nbd-mirror:commit:" + id_ + ":" + std::to_string(next_epoch());
}

std::string Session::past_commit_context() const {
    return "nbd-mirror:commit:" + id_ + ":0";
}

// The first one is the clock's, so that it is later than those of processes of which nothing is
// known; and later than all that the process before may have used since it has recorded one,
// although clocks are set back.
std::uint64_t Session::next_epoch() noexcept {
    constexpr std::uint64_t kMostOfAProcess = 1'000'000'000;
    const std::chrono::nanoseconds now = std::chrono::system_clock::now().time_since_epoch();
    epoch_ = std::exchange(begun_, true)
                 ? epoch_ + 1
                 : std::max(epoch_ + kMostOfAProcess, static_cast<std::uint64_t>(now.count()));
    return epoch_;
}

}  // namespace nbdm
