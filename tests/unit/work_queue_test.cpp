// SPDX-License-Identifier: Apache-2.0
#include "client/work_queue.h"

#include <poll.h>
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using namespace std::chrono_literals;
using Pushed = WorkQueue::Pushed;

constexpr unsigned kFew = InFlightWindow::kFewPerWorker;

class WorkQueueTest : public testing::Test {
  protected:
    static Piece piece(std::uint64_t offset) { return {.range = {offset, 1}}; }
    static bool was_woken(const IoThread& thread) {
        pollfd fd{thread.wake_fd(), POLLIN, 0};
        return ::poll(&fd, 1, 0) == 1;
    }
    static void forget_wake_ups(const IoThread& thread) {
        std::uint64_t count = 0;
        ASSERT_EQ(::read(thread.wake_fd(), &count, sizeof(count)), 8);
    }
    unsigned fill() {
        unsigned count = 0;
        while (queue_.push(piece(count), 0ms) == Pushed::taken) {
            ++count;
        }
        return count;
    }

    // Pops what `thread` is given, and does not finish it.
    std::size_t take_all(IoThread& thread) {
        std::size_t count = 0;
        while (queue_.try_pop(thread).piece) {
            ++count;
        }
        return count;
    }

    Pace pace_;
    WorkQueue queue_{pace_, {.workers = 3, .per_worker = 64}};
    IoThread worker_{{.name = "worker"}, [](IoThread&) {}};
    IoThread other_{{.name = "other"}, [](IoThread&) {}};
    IoThread third_{{.name = "third"}, [](IoThread&) {}};
};

TEST_F(WorkQueueTest, PiecesComeOutInTheOrderTheyWentIn) {
    ASSERT_EQ(queue_.push(piece(1), 0ms), Pushed::taken);
    ASSERT_EQ(queue_.push(piece(2), 0ms), Pushed::taken);
    EXPECT_EQ(queue_.try_pop(worker_).piece->range.offset, 1U);
    EXPECT_EQ(queue_.try_pop(worker_).piece->range.offset, 2U);
    EXPECT_FALSE(queue_.try_pop(worker_).piece);
}

TEST_F(WorkQueueTest, AFullQueueTakesNothingUntilThereIsRoom) {
    EXPECT_GT(fill(), 0U);
    EXPECT_EQ(queue_.push(piece(7), 1ms), Pushed::full);
    while (const std::optional<Piece> next = queue_.try_pop(worker_).piece) {
        queue_.finished(worker_, *next);
    }
    EXPECT_EQ(queue_.push(piece(7), 0ms), Pushed::taken);
}

TEST_F(WorkQueueTest, PiecesAreCutToWhatTheLimitOfNowAdmits) {
    constexpr std::uint64_t kGib = std::uint64_t{1} << 30;
    constexpr std::uint64_t kRate = 100 << 20;
    ASSERT_EQ(queue_.push({.kind = Piece::Kind::zero, .range = {4096, kGib}}, 0ms), Pushed::taken);
    ASSERT_EQ(queue_.push({.kind = Piece::Kind::alike, .range = {2 * kGib, kGib}}, 0ms),
              Pushed::taken);
    pace_.set_rate(kRate);
    const Piece first = queue_.try_pop(worker_).piece.value();
    EXPECT_EQ(first.kind, Piece::Kind::zero);
    EXPECT_EQ(first.range.offset, 4096U);
    EXPECT_LE(first.range.length, kRate / 10);
    EXPECT_TRUE(is_aligned(first.range.end(), 1 << 20));
    queue_.finished(worker_, first);
    EXPECT_FALSE(queue_.wait_until_idle(0ms));
    pace_.set_rate({});
    const Piece rest = queue_.try_pop(worker_).piece.value();
    EXPECT_EQ(rest.range, Range::from_to(first.range.end(), 4096 + kGib));
    queue_.finished(worker_, rest);
    const Piece alike = queue_.try_pop(worker_).piece.value();
    EXPECT_EQ(alike.range.length, kGib);
    queue_.finished(worker_, alike);
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
}

TEST_F(WorkQueueTest, PiecesAreNotCutSmallerThanAUnit) {
    queue_.begin_pass(/*with_checkpoints=*/false, 64 << 10);
    ASSERT_EQ(queue_.push({.range = {0, 256 << 10}}, 0ms), Pushed::taken);
    pace_.set_rate(Pace::kMinBytesPerSecond);
    EXPECT_EQ(queue_.try_pop(worker_).piece->range.length, 64U << 10);
}

TEST_F(WorkQueueTest, AnIdleWorkerIsWokenByThePieceAndTheOthersSleepOn) {
    EXPECT_FALSE(queue_.try_pop(other_).piece);
    EXPECT_FALSE(queue_.try_pop(worker_).piece);
    ASSERT_EQ(queue_.push(piece(1), 0ms), Pushed::taken);
    EXPECT_NE(was_woken(worker_), was_woken(other_));
}

TEST_F(WorkQueueTest, AFlushIsForTheOldestConnectionAndDoesNotWaitForData) {
    using Takes = WorkQueue::Takes;
    ASSERT_FALSE(queue_.try_pop(worker_).piece);
    ASSERT_FALSE(queue_.try_pop(other_, Takes::no_flush).piece);
    ASSERT_EQ(queue_.push({.kind = Piece::Kind::flush, .range = {}}, 0ms), Pushed::taken);
    EXPECT_TRUE(was_woken(worker_) && !was_woken(other_));
    EXPECT_FALSE(queue_.try_pop(other_, Takes::no_flush).piece);
    ASSERT_EQ(queue_.push(piece(1), 0ms), Pushed::taken);
    pace_.set_paused(true);
    const auto flush = queue_.try_pop(worker_).piece;
    ASSERT_TRUE(flush && flush->kind == Piece::Kind::flush);
    pace_.set_paused(false);
    const auto data = queue_.try_pop(other_, Takes::no_flush).piece;
    ASSERT_TRUE(data && data->range.offset == 1);
    EXPECT_FALSE(queue_.wait_until_idle(0ms));
    queue_.finished(worker_, *flush);
    queue_.finished(other_, *data);
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
    // Nobody waits for one that was not taken when the work is stopped.
    ASSERT_EQ(queue_.push({.kind = Piece::Kind::flush, .range = {}}, 0ms), Pushed::taken);
    queue_.fail({.sentence = "why"});
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
}

TEST_F(WorkQueueTest, IsIdleOnlyWhenWhatWasTakenIsFinished) {
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
    ASSERT_EQ(queue_.push(piece(1), 0ms), Pushed::taken);
    EXPECT_FALSE(queue_.wait_until_idle(0ms));
    ASSERT_TRUE(queue_.try_pop(worker_).piece);
    EXPECT_FALSE(queue_.wait_until_idle(0ms));
    queue_.finished(worker_, piece(1));
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
}

TEST_F(WorkQueueTest, AFailureDropsWhatNobodyTookAndWaitsForTheRest) {
    ASSERT_EQ(queue_.push(piece(1), 0ms), Pushed::taken);
    ASSERT_TRUE(queue_.try_pop(worker_).piece);
    fill();
    queue_.fail({.sentence = "first"});
    queue_.fail({.sentence = "second"});
    EXPECT_EQ(queue_.push(piece(2), 0ms), Pushed::failed);
    EXPECT_FALSE(queue_.try_pop(worker_).piece);
    EXPECT_FALSE(queue_.wait_until_idle(0ms));
    queue_.finished(worker_, piece(1));
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
    EXPECT_EQ(queue_.take_failure()->sentence, "first");
    EXPECT_EQ(queue_.push(piece(2), 0ms), Pushed::taken);
}

TEST_F(WorkQueueTest, FewPiecesAreUnderWayOverFewConnections) {
    fill();
    EXPECT_EQ(take_all(worker_), kFew);
    EXPECT_EQ(take_all(other_), kFew);
    EXPECT_EQ(take_all(third_), 0U);
    queue_.finished(other_, piece(kFew));
    EXPECT_EQ(take_all(third_), 0U) << "two connections are enough";
    EXPECT_EQ(take_all(worker_), 0U) << "it has its share";
    EXPECT_EQ(take_all(other_), 1U);
}

TEST_F(WorkQueueTest, AWorkerWithoutRoomHasAnotherWoken) {
    fill();
    ASSERT_EQ(take_all(worker_), kFew);
    ASSERT_EQ(take_all(third_), kFew);
    ASSERT_EQ(take_all(other_), 0U);
    for (unsigned number = kFew; number < 2 * kFew; ++number) {
        queue_.finished(third_, piece(number));
    }
    ASSERT_EQ(take_all(worker_), 0U);
    ASSERT_FALSE(was_woken(other_)) << "who finishes takes the next itself";
    ASSERT_EQ(take_all(third_), kFew);
    queue_.use_workers(4);  // there is more room now
    ASSERT_EQ(take_all(worker_), 0U);
    EXPECT_TRUE(was_woken(other_));
    EXPECT_EQ(take_all(other_), kFew);
}

TEST_F(WorkQueueTest, WhoLeavesGivesItsPlaceToAnother) {
    fill();
    ASSERT_EQ(take_all(worker_), kFew);
    ASSERT_EQ(take_all(third_), kFew);
    ASSERT_EQ(take_all(other_), 0U);
    queue_.leave(worker_);
    EXPECT_TRUE(was_woken(other_)) << "though its own pieces are still under way";
    EXPECT_EQ(take_all(other_), kFew);
    queue_.finished(worker_, piece(0));
    EXPECT_EQ(take_all(other_), 0U);
}

TEST_F(WorkQueueTest, OfFewerPlacesTheOthersComeToAnEnd) {
    {
        const Pace::Urgent held(pace_);
        fill();
        ASSERT_EQ(take_all(worker_) + take_all(other_) + take_all(third_), 3 * 64U);
    }
    unsigned number = 0;
    unsigned with_more = 0;
    for (IoThread* each : {&worker_, &other_, &third_}) {
        for (unsigned finished = 0; finished < 63; ++finished) {
            queue_.finished(*each, piece(number++));
        }
        ++number;
    }
    for (IoThread* each : {&worker_, &other_, &third_}) {
        with_more += take_all(*each) > 0 ? 1 : 0;
    }
    EXPECT_EQ(with_more, InFlightWindow::kFewWorkers);
}

TEST_F(WorkQueueTest, WhileWritersAreHeldAllConnectionsWork) {
    const Pace::Urgent held(pace_);
    ASSERT_GT(fill(), 3 * 64U);
    EXPECT_EQ(take_all(worker_), 64U);
    EXPECT_EQ(take_all(other_), 64U);
    EXPECT_EQ(take_all(third_), 64U);
}

class CheckpointTest : public WorkQueueTest {
  protected:
    static constexpr std::uint64_t kMib = 1 << 20;
    // One worker may take all that there is.
    const Pace::Urgent held_{pace_};
    CheckpointTest() { queue_.begin_pass(/*with_checkpoints=*/true); }

    static Piece mib(std::uint64_t number) { return {.range = {number * kMib, kMib}}; }
    // Pops pieces up to the first flush, or all; returns it, and has the others in `popped_`.
    std::optional<Piece> pop_to_flush() {
        while (const std::optional<Piece> next = queue_.try_pop(worker_).piece) {
            if (next->kind == Piece::Kind::flush) {
                return next;
            }
            popped_.push_back(*next);
        }
        return std::nullopt;
    }
    std::vector<Piece> popped_;
};

TEST_F(CheckpointTest, AFlushCoversWhatWasFinishedWhenItBegan) {
    for (unsigned number = 0; number < 40; ++number) {
        ASSERT_EQ(queue_.push(mib(number), 0ms), Pushed::taken);
    }
    EXPECT_FALSE(pop_to_flush());
    ASSERT_EQ(popped_.size(), 40U);
    // All but one early piece.
    for (unsigned number = 0; number < 40; ++number) {
        if (number != 20) {
            queue_.finished(worker_, popped_[number]);
        }
    }
    const std::optional<Piece> flush = pop_to_flush();
    ASSERT_TRUE(flush);
    EXPECT_GE(flush->range.end(), 8 * kMib);
    EXPECT_LE(flush->range.end(), 20 * kMib);
    queue_.finished(worker_, popped_[20]);
    EXPECT_EQ(queue_.durable_to(), 0U) << "what is flushed is not durable before its answer";
    EXPECT_FALSE(pop_to_flush()) << "one at a time";
    queue_.finished(worker_, *flush);
    EXPECT_EQ(queue_.durable_to(), flush->range.end());
}

TEST_F(CheckpointTest, AFailedPassHasNothingMoreDurable) {
    for (unsigned number = 0; number < 9; ++number) {
        ASSERT_EQ(queue_.push(mib(number), 0ms), Pushed::taken);
    }
    EXPECT_FALSE(pop_to_flush());
    for (const Piece& piece : popped_) {
        queue_.finished(worker_, piece);
    }
    const std::optional<Piece> flush = pop_to_flush();
    ASSERT_TRUE(flush);
    queue_.fail({.sentence = "cannot flush"});
    queue_.finished(worker_, *flush);
    EXPECT_EQ(queue_.durable_to(), 0U);
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
}

TEST_F(CheckpointTest, AnotherPassBeginsAtItsStart) {
    for (unsigned number = 0; number < 9; ++number) {
        ASSERT_EQ(queue_.push(mib(number), 0ms), Pushed::taken);
    }
    EXPECT_FALSE(pop_to_flush());
    for (const Piece& piece : popped_) {
        queue_.finished(worker_, piece);
    }
    queue_.finished(worker_, *pop_to_flush());
    EXPECT_EQ(queue_.durable_to(), 8 * kMib);
    queue_.begin_pass(/*with_checkpoints=*/false);
    EXPECT_EQ(queue_.durable_to(), 0U);
}

}  // namespace
}  // namespace nbdm
