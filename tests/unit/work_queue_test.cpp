// SPDX-License-Identifier: Apache-2.0
#include "client/work_queue.h"

#include <poll.h>
#include <string>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using namespace std::chrono_literals;
using Pushed = WorkQueue::Pushed;

class WorkQueueTest : public testing::Test {
  protected:
    static Piece piece(std::uint64_t offset) { return {.range = {offset, 1}}; }
    static bool was_woken(const IoThread& thread) {
        pollfd fd{thread.wake_fd(), POLLIN, 0};
        return ::poll(&fd, 1, 0) == 1;
    }
    unsigned fill() {
        unsigned count = 0;
        while (queue_.push(piece(count), 0ms) == Pushed::taken) {
            ++count;
        }
        return count;
    }

    Pace pace_;
    WorkQueue queue_{pace_};
    IoThread worker_{{.name = "worker"}, [](IoThread&) {}};
    IoThread other_{{.name = "other"}, [](IoThread&) {}};
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
    while (queue_.try_pop(worker_).piece) {
    }
    EXPECT_EQ(queue_.push(piece(7), 0ms), Pushed::taken);
}

TEST_F(WorkQueueTest, AnIdleWorkerIsWokenByThePieceAndTheOthersSleepOn) {
    EXPECT_FALSE(queue_.try_pop(other_).piece);
    EXPECT_FALSE(queue_.try_pop(worker_).piece);
    ASSERT_EQ(queue_.push(piece(1), 0ms), Pushed::taken);
    EXPECT_NE(was_woken(worker_), was_woken(other_));
}

TEST_F(WorkQueueTest, IsIdleOnlyWhenWhatWasTakenIsFinished) {
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
    ASSERT_EQ(queue_.push(piece(1), 0ms), Pushed::taken);
    EXPECT_FALSE(queue_.wait_until_idle(0ms));
    ASSERT_TRUE(queue_.try_pop(worker_).piece);
    EXPECT_FALSE(queue_.wait_until_idle(0ms));
    queue_.finished();
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
}

TEST_F(WorkQueueTest, AFailureDropsWhatNobodyTookAndWaitsForTheRest) {
    ASSERT_EQ(queue_.push(piece(1), 0ms), Pushed::taken);
    ASSERT_TRUE(queue_.try_pop(worker_).piece);
    fill();
    queue_.fail("first");
    queue_.fail("second");
    EXPECT_EQ(queue_.push(piece(2), 0ms), Pushed::failed);
    EXPECT_FALSE(queue_.try_pop(worker_).piece);
    EXPECT_FALSE(queue_.wait_until_idle(0ms));
    queue_.finished();
    EXPECT_TRUE(queue_.wait_until_idle(0ms));
    EXPECT_EQ(queue_.take_failure(), "first");
    EXPECT_EQ(queue_.push(piece(2), 0ms), Pushed::taken);
}

}  // namespace
}  // namespace nbdm
