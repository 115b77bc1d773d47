// SPDX-License-Identifier: Apache-2.0
#include "client/digest_comparison.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "iothread/time_slice.h"

namespace nbdm {

namespace {

// Data that is compared at a time: as much as a server reads for one answer.
constexpr std::uint64_t kWindowBytes = BlockDigests::kMaxReadBytes;
// Of a hole, which costs one question each time and may be data on the other side.
constexpr std::uint64_t kHoleWindowBytes = 16 * kWindowBytes;
// Windows under way or compared for each thread.
constexpr std::size_t kAheadPerThread = 2;
constexpr std::chrono::milliseconds kTickInterval{20};

std::uint64_t random_seed() {
    std::random_device device;
    return std::uint64_t{device()} << 32 | device();
}

// Adds what both have said of, in stretches that are alike or not.
void combine(const std::vector<DigestRun>& source, const std::vector<DigestRun>& target,
             Allocation allocation, std::vector<Extent>& into) {
    std::uint64_t at = source.front().range.offset;
    auto s = source.begin();
    auto t = target.begin();
    while (s != source.end() && t != target.end()) {
        const std::uint64_t end = std::min(s->range.end(), t->range.end());
        const bool alike = s->digest == t->digest;
        if (!into.empty() && into.back().alike == alike) {
            into.back().range = Range::from_to(into.back().range.offset, end);
        } else {
            into.push_back(
                {.range = Range::from_to(at, end), .allocation = allocation, .alike = alike});
        }
        at = end;
        s += s->range.end() == end ? 1 : 0;
        t += t->range.end() == end ? 1 : 0;
    }
}

}  // namespace

std::unique_ptr<DigestComparison> DigestComparison::open(const Side& source, const Side& target,
                                                         unsigned threads,
                                                         const Cancellation& cancellation) {
    std::unique_ptr<DigestComparison> made(new DigestComparison(source, target, cancellation));
    for (unsigned i = 0; i < threads; ++i) {
        Pair pair;
        try {
            pair = made->open_pair();
        } catch (const ConnectionLost&) {
            break;  // there is room for no more; if a server is gone, the pass meets that
        }
        if (!pair.complete()) {
            break;
        }
        made->threads_.emplace_back(
            [comparison = made.get()](const std::stop_token& stop, Pair own) {
                comparison->serve(stop, std::move(own));
            },
            std::move(pair));
    }
    return made->threads_.empty() ? nullptr : std::move(made);
}

DigestComparison::DigestComparison(const Side& source, const Side& target,
                                   const Cancellation& cancellation)
    : source_(source), target_(target), seed_(random_seed()), cancelled_(&cancellation) {}

DigestComparison::~DigestComparison() {
    cancelled_.request();
}

DigestComparison::Pair DigestComparison::open_pair() const {
    Pair pair;
    pair.source = source_.open_digests(seed_, cancelled_);
    if (pair.source) {
        pair.target = target_.open_digests(seed_, cancelled_);
    }
    return pair;
}

std::future<std::vector<Extent>> DigestComparison::compare(const Extent& stretch) {
    const std::lock_guard lock(mutex_);
    Task& task = tasks_.emplace_back(Task{.stretch = stretch, .result = {}});
    more_.notify_one();
    return task.result.get_future();
}

void DigestComparison::serve(const std::stop_token& stop, Pair pair) {
    take_long_turns();
    // A pair that has failed once is not used again: answers to what was given up may still come.
    std::exception_ptr failure;
    for (;;) {
        std::unique_lock lock(mutex_);
        if (!more_.wait(lock, stop, [this] { return !tasks_.empty(); }) || stop.stop_requested()) {
            return;
        }
        Task task = std::move(tasks_.front());
        tasks_.pop_front();
        lock.unlock();
        try {
            if (failure) {
                std::rethrow_exception(failure);
            }
            task.result.set_value(compare(pair, task.stretch));
        } catch (const std::exception&) {
            failure = std::current_exception();
            task.result.set_exception(failure);
        }
    }
}

std::vector<Extent> DigestComparison::compare(Pair& pair, const Extent& stretch) const {
    std::vector<Extent> result;
    for (Range left = stretch.range; !left.empty();
         left = Range::from_to(result.back().range.end(), stretch.range.end())) {
        if (cancelled_.requested()) {
            throw Cancelled();
        }
        const std::vector<DigestRun> source = pair.source->digests(left);
        const std::vector<DigestRun> target =
            pair.target->digests(Range::from_to(left.offset, source.back().range.end()));
        combine(source, target, stretch.allocation, result);
    }
    return result;
}

std::vector<Extent> ComparingScout::extents(Range within) {
    look_ahead(within.end());
    while (ahead_.front().wait_for(kTickInterval) != std::future_status::ready) {
        if (tick_) {
            tick_();
        }
    }
    std::vector<Extent> result = ahead_.front().get();
    ahead_.pop_front();
    return result;
}

// Opened once there is something to compare.
bool ComparingScout::has_comparison() {
    if (open_) {
        comparison_ = std::exchange(open_, nullptr)();
    }
    return comparison_ != nullptr;
}

void ComparingScout::look_ahead(std::uint64_t end) {
    while (ahead_.size() <
           kAheadPerThread * (comparison_ != nullptr ? comparison_->threads() : 1)) {
        if (found_.empty()) {
            if (found_to_ == end) {
                return;
            }
            const auto found = scout_.extents(Range::from_to(found_to_, end));
            found_.assign(found.begin(), found.end());
            found_to_ = found.back().range.end();
        }
        Extent& next = found_.front();
        if (!next.dirty || next.range.length < kMinBytes || !has_comparison()) {
            std::promise<std::vector<Extent>> known;
            known.set_value({next});
            ahead_.push_back(known.get_future());
            found_.pop_front();
            continue;
        }
        const std::uint64_t most_bytes = next.zero() ? kHoleWindowBytes : kWindowBytes;
        const std::uint64_t window_end = align_down(next.range.offset, most_bytes) + most_bytes;
        Extent window = next;
        window.range = Range::from_to(next.range.offset, std::min(window_end, next.range.end()));
        ahead_.push_back(comparison_->compare(window));
        next.range = next.range.after(window.range.length);
        if (next.range.empty()) {
            found_.pop_front();
        }
    }
}

}  // namespace nbdm
