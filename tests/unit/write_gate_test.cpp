// SPDX-License-Identifier: Apache-2.0
#include "server/write_gate.h"

#include <atomic>
#include <poll.h>
#include <thread>

#include <sys/eventfd.h>

#include <gtest/gtest.h>

namespace nbdm {

namespace {

struct Fixture {
    UniqueFd drained{::eventfd(0, EFD_NONBLOCK)};
    WriteGate gate{drained.get()};
    IoThread thread{{.name = "test"}, [](IoThread&) {}};
    IoThread other_thread{{.name = "test"}, [](IoThread&) {}};
    WriteGate::Lane& lane = gate.attach(thread);
    WriteGate::Lane& other = gate.attach(other_thread);
    ~Fixture() {
        gate.detach(lane);
        gate.detach(other);
    }
    [[nodiscard]] bool drained_was_rung() const {
        pollfd fd{drained.get(), POLLIN, 0};
        return ::poll(&fd, 1, 0) == 1;
    }
};

}  // namespace

TEST(WriteGate, IsDrainedOnlyWhenTheLastWriteIsBack) {
    Fixture f;
    ASSERT_EQ(f.gate.enter(f.lane), WriteGate::Entry::entered);
    f.gate.hold();
    EXPECT_FALSE(f.gate.drained());
    EXPECT_EQ(f.gate.enter(f.other), WriteGate::Entry::held);
    f.gate.leave(f.lane);
    EXPECT_TRUE(f.gate.drained());
    EXPECT_TRUE(f.drained_was_rung());
}

TEST(WriteGate, MeasuresTheWaitOfTheFirstWriteThatWasKeptWaiting) {
    Fixture f;
    f.gate.hold();
    EXPECT_EQ(f.gate.release(), 0u);
    f.gate.hold();
    EXPECT_EQ(f.gate.enter(f.lane), WriteGate::Entry::held);
    EXPECT_GT(f.gate.release(), 0u);
    EXPECT_EQ(f.gate.enter(f.lane), WriteGate::Entry::entered);
    f.gate.leave(f.lane);
}

TEST(WriteGate, ARetiredGateNeverOpens) {
    Fixture f;
    f.gate.hold();
    f.gate.retire();
    EXPECT_EQ(f.gate.enter(f.lane), WriteGate::Entry::retired);
    EXPECT_EQ(f.gate.enter_alone(f.lane), WriteGate::Entry::retired);
}

TEST(WriteGate, AWriteThatNeedsTheDiskAloneWaitsForAHold) {
    Fixture f;
    f.gate.hold();
    EXPECT_EQ(f.gate.enter_alone(f.lane), WriteGate::Entry::held);
    EXPECT_TRUE(f.gate.drained());
    f.gate.release();
    EXPECT_EQ(f.gate.enter_alone(f.lane), WriteGate::Entry::entered);
    EXPECT_EQ(f.gate.enter(f.other), WriteGate::Entry::shut);
    f.gate.leave_alone(f.lane);
    EXPECT_EQ(f.gate.enter(f.other), WriteGate::Entry::entered);
    f.gate.leave(f.other);
}

// Both count a plain number up while they are inside: an overlap loses counts, and is a data race
// to ThreadSanitizer.
TEST(WriteGate, NobodyIsInsideWithAWriterThatIsAlone) {
    Fixture f;
    constexpr int kRounds = 2000;
    constexpr int kSteps = 50;
    volatile int count = 0;
    const auto count_up = [&count] {
        for (int i = 0; i < kSteps; ++i) {
            count = count + 1;
        }
    };
    const auto shared_writer = [&] {
        for (int i = 0; i < kRounds;) {
            if (f.gate.enter(f.lane) == WriteGate::Entry::entered) {
                count_up();
                f.gate.leave(f.lane);
                ++i;
            }
        }
    };
    const auto lonely_writer = [&] {
        for (int i = 0; i < kRounds;) {
            if (f.gate.enter_alone(f.other) == WriteGate::Entry::entered) {
                count_up();
                f.gate.leave_alone(f.other);
                ++i;
            }
        }
    };
    {
        const std::jthread a(shared_writer);
        const std::jthread b(lonely_writer);
    }
    EXPECT_EQ(count, 2 * kRounds * kSteps);
}

}  // namespace nbdm
