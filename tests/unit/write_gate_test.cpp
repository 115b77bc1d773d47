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
    EXPECT_EQ(f.gate.enter(f.other), WriteGate::Entry::shut);
    f.gate.leave(f.lane);
    EXPECT_TRUE(f.gate.drained());
    EXPECT_TRUE(f.drained_was_rung());
}

TEST(WriteGate, MeasuresTheWaitOfTheFirstWriteThatWasKeptWaiting) {
    Fixture f;
    f.gate.hold();
    EXPECT_EQ(f.gate.release(false), 0u);
    f.gate.hold();
    EXPECT_EQ(f.gate.enter(f.lane), WriteGate::Entry::shut);
    EXPECT_GT(f.gate.release(false), 0u);
    EXPECT_EQ(f.gate.enter(f.lane), WriteGate::Entry::entered);
    f.gate.leave(f.lane);
}

TEST(WriteGate, ARetiredGateNeverOpens) {
    Fixture f;
    f.gate.hold();
    f.gate.release(true);
    EXPECT_EQ(f.gate.enter(f.lane), WriteGate::Entry::retired);
    EXPECT_EQ(f.gate.enter_alone(f.lane), WriteGate::Entry::retired);
}

TEST(WriteGate, AWriteThatNeedsTheDiskAloneWaitsForAHold) {
    Fixture f;
    f.gate.hold();
    EXPECT_EQ(f.gate.enter_alone(f.lane), WriteGate::Entry::shut);
    EXPECT_TRUE(f.gate.drained());
    f.gate.release(false);
    EXPECT_EQ(f.gate.enter_alone(f.lane), WriteGate::Entry::entered);
    EXPECT_EQ(f.gate.enter(f.other), WriteGate::Entry::shut);
    f.gate.leave_alone(f.lane);
    EXPECT_EQ(f.gate.enter(f.other), WriteGate::Entry::entered);
    f.gate.leave(f.other);
}

// Writers count a shared number up without protection while they are inside alone; any overlap
// with another writer loses counts.
TEST(WriteGate, NobodyIsInsideWithAWriterThatIsAlone) {
    Fixture f;
    constexpr int kRounds = 2000;
    std::atomic<int> inside{0};
    std::atomic<int> violations{0};
    const auto shared_writer = [&](WriteGate::Lane& lane) {
        for (int i = 0; i < kRounds;) {
            if (f.gate.enter(lane) == WriteGate::Entry::entered) {
                inside.fetch_add(1);
                inside.fetch_sub(1);
                f.gate.leave(lane);
                ++i;
            }
        }
    };
    const auto lonely_writer = [&](WriteGate::Lane& lane) {
        for (int i = 0; i < kRounds;) {
            if (f.gate.enter_alone(lane) == WriteGate::Entry::entered) {
                violations.fetch_add(inside.load() != 0 ? 1 : 0);
                f.gate.leave_alone(lane);
                ++i;
            }
        }
    };
    {
        const std::jthread a([&] { shared_writer(f.lane); });
        const std::jthread b([&] { lonely_writer(f.other); });
    }
    EXPECT_EQ(violations.load(), 0);
}

}  // namespace nbdm
