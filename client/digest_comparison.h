// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include "client/cancellation.h"
#include "client/digest_source.h"
#include "client/scout.h"
#include "client/side.h"

namespace nbdm {

// Compares stretches of two sides by digests that each makes where its data is, several at a time:
// comparing moves no data.
//
// Threads: one at a time; it has some of its own, each with a connection to each side.
class DigestComparison {
  public:
    // Null when a side makes no digests, or has no room for another connection. Both sides and
    // `cancellation` outlive it. Throws Cancelled, JobError or std::system_error.
    [[nodiscard]] static std::unique_ptr<DigestComparison> open(const Side& source,
                                                                const Side& target,
                                                                unsigned threads,
                                                                const Cancellation& cancellation);
    DigestComparison(const DigestComparison&) = delete;
    DigestComparison& operator=(const DigestComparison&) = delete;
    ~DigestComparison();  // does not wait for what nobody has asked for yet

    [[nodiscard]] std::size_t threads() const noexcept { return threads_.size(); }

    // The same stretch (not empty), in parts that are alike on both sides and others. The future
    // throws what went wrong: JobError, ConnectionLost, Cancelled, std::system_error.
    [[nodiscard]] std::future<std::vector<Extent>> compare(const Extent& stretch);

  private:
    struct Pair {
        std::unique_ptr<DigestSource> source;
        std::unique_ptr<DigestSource> target;
        [[nodiscard]] bool complete() const noexcept { return source && target; }
    };
    struct Task {
        Extent stretch;
        std::promise<std::vector<Extent>> result;
    };

    DigestComparison(const Side& source, const Side& target, const Cancellation& cancellation);
    [[nodiscard]] Pair open_pair() const;
    void serve(const std::stop_token& stop, Pair pair);
    [[nodiscard]] std::vector<Extent> compare(Pair& pair, const Extent& stretch) const;

    const Side& source_;
    const Side& target_;
    const std::uint64_t seed_;
    Cancellation cancelled_;

    std::mutex mutex_;  // guards tasks_
    std::condition_variable_any more_;
    std::deque<Task> tasks_;
    std::vector<std::jthread> threads_;  // last: they use all above
};

// Says of what another scout finds what is alike on both sides already. Asks that one, and
// compares, some way ahead.
//
// Threads: one at a time.
class ComparingScout final : public Scout {
  public:
    // Shorter stretches than this are left to those who read both sides: two questions cost more.
    static constexpr std::uint64_t kMinBytes = 256 << 10;

    // `open` is called once there is something to compare; null from it: nothing is compared.
    // `tick` is called again and again while it waits, and may throw. What is referred to outlives
    // this.
    ComparingScout(Scout& scout, std::function<DigestComparison*()> open,
                   std::function<void()> tick)
        : scout_(scout), open_(std::move(open)), tick_(std::move(tick)) {}

    // Of one disk, from its start to its end: each time from where the last answer ended.
    [[nodiscard]] std::vector<Extent> extents(Range within) override;

  private:
    [[nodiscard]] bool has_comparison();
    void look_ahead(std::uint64_t end);

    Scout& scout_;
    std::function<DigestComparison*()> open_;  // null once it was called
    const std::function<void()> tick_;
    DigestComparison* comparison_ = nullptr;
    std::uint64_t found_to_ = 0;
    std::deque<Extent> found_;  // by the other scout, and not given to anybody yet
    std::deque<std::future<std::vector<Extent>>> ahead_;
};

}  // namespace nbdm
