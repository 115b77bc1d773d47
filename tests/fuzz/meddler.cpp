// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/meddler.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stop_token>

namespace nbdm::fuzz {

namespace {

// The most, in microseconds; a round of clients takes some milliseconds.
constexpr std::uint64_t kPauseUs = 4000;
constexpr std::uint64_t kDelayUs = 5000;

}  // namespace

Meddler::Meddler(Export& served, std::span<const std::unique_ptr<Connection>> connections,
                 Random random)
    : served_(served),
      connections_(connections),
      random_(random),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

void Meddler::run(const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any nothing;  // but the stop ends a pause early
    std::unique_lock lock(mutex);
    const auto pause = [&] { return std::chrono::microseconds(pick(random_, kPauseUs)); };
    while (!nothing.wait_for(lock, stop, pause(), [&] { return stop.stop_requested(); })) {
        meddle();
    }
    served_.throttle().stop();
    static_cast<void>(served_.gate().release());
}

void Meddler::meddle() {
    switch (pick(random_, connections_.empty() ? 3 : 4)) {
        case 0:
            if (served_.gate().held()) {
                static_cast<void>(served_.gate().release());
            } else {
                served_.gate().hold();
            }
            break;
        case 1:
            served_.throttle().delay(std::chrono::microseconds(pick(random_, kDelayUs)), {});
            break;
        case 2:
            served_.throttle().stop();
            break;
        default:
            Connection& one = *connections_[pick(random_, connections_.size())];
            one.request_stop();
            if (one_in(random_, 2)) {
                one.abandon();
            }
            break;
    }
}

}  // namespace nbdm::fuzz
