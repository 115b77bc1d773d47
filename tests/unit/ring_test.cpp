// SPDX-License-Identifier: Apache-2.0
#include "iothread/ring.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <poll.h>
#include <unistd.h>
#include <vector>

#include <sys/eventfd.h>

#include <gtest/gtest.h>

#include "iothread/buffer_pool.h"
#include "iothread/io_thread.h"
#include "iothread/unique_fd.h"

namespace nbdm {

namespace {

class Recorder final : public Operation {
  public:
    std::vector<int> results;

  private:
    void completed(int result) noexcept override { results.push_back(result); }
};

}  // namespace

TEST(Ring, TakesMoreOperationsThanItHasEntries) {
    Ring ring(4);
    const UniqueFd zero(::open("/dev/zero", O_RDONLY));
    std::vector<std::unique_ptr<Recorder>> all;
    std::array<std::byte, 8> memory{};
    for (int i = 0; i < 50; ++i) {
        all.push_back(std::make_unique<Recorder>());
        ring.read(*all.back(), zero.get(), memory, 0);
    }
    while (ring.pending() > 0) {
        ring.run_once(true);
    }
    for (const auto& each : all) {
        EXPECT_EQ(each->results, std::vector<int>{8});
    }
}

TEST(Ring, ARegisteredFileIsNotLookedUpAgain) {
    Ring ring(4);
    int number = -1;
    {
        const UniqueFd zero(::open("/dev/zero", O_RDONLY));
        number = zero.get();
        ring.register_file(number);
    }
    // The number stands for nothing any more, for those who look it up.
    Recorder recorder;
    std::array<std::byte, 8> memory{};
    ring.read(recorder, number, memory, 0);
    ring.run_once(true);
    EXPECT_EQ(recorder.results, std::vector<int>{8});
}

TEST(Ring, RegisteredMemoryIsWhatAReadGoesTo) {
    Ring ring(4);
    const UniqueFd zero(::open("/dev/zero", O_RDONLY));
    BufferPool pool(1 << 20, nullptr, &ring);
    {
        const Buffer buffer = pool.lease(8192);
        ASSERT_NE(buffer.ring_index(), Ring::kNotRegistered);
        std::byte* const middle = buffer.data() + 4096;
        *middle = std::byte{7};
        Recorder recorder;
        ring.read(recorder, zero.get(), {middle, 4096}, 0, buffer.ring_index());
        ring.run_once(true);
        EXPECT_EQ(*middle, std::byte{0});
        std::array<std::byte, 8> elsewhere{};
        ring.read(recorder, zero.get(), elsewhere, 0, buffer.ring_index());
        ring.run_once(true);
        EXPECT_EQ(recorder.results, (std::vector<int>{4096, -EFAULT}));
    }
    const int before = pool.lease(8192).ring_index();
    pool.trim();
    EXPECT_EQ(pool.lease(4096).ring_index(), before) << "an index is not used again";
}

TEST(Ring, MemoryThatCannotBeRegisteredIsUsedAllTheSame) {
    Ring ring(4);
    BufferPool pool(std::size_t{16} << 20, nullptr, &ring);
    std::vector<Buffer> all;
    for (int i = 0; i < 300; ++i) {
        all.push_back(pool.lease(4096));
    }
    EXPECT_EQ(all.back().ring_index(), Ring::kNotRegistered);
    const UniqueFd zero(::open("/dev/zero", O_RDONLY));
    Recorder recorder;
    ring.read(recorder, zero.get(), {all.back().data(), 4096}, 0, all.back().ring_index());
    ring.run_once(true);
    EXPECT_EQ(recorder.results, std::vector<int>{4096});
}

TEST(Ring, AFailureArrivesAsACompletion) {
    Ring ring(4);
    Recorder bad;
    std::array<std::byte, 8> memory{};
    ring.read(bad, -1, memory, 0);
    ring.run_once(true);
    EXPECT_EQ(bad.results, std::vector<int>{-EBADF});
}

TEST(Ring, ACancelledOperationAnswersForItself) {
    Ring ring(4);
    const UniqueFd never(::eventfd(0, EFD_NONBLOCK));
    Recorder poll;
    ring.poll(poll, never.get(), POLLIN);
    ring.run_once(false);
    EXPECT_TRUE(poll.pending());
    ring.cancel(poll);
    while (poll.pending()) {
        ring.run_once(true);
    }
    EXPECT_EQ(poll.results, std::vector<int>{-ECANCELED});
}

TEST(Ring, ALookWithoutWaitingSeesWhatHasCompleted) {
    Ring ring(4);
    const UniqueFd event(::eventfd(0, EFD_NONBLOCK));
    Recorder poll;
    ring.poll(poll, event.get(), POLLIN);
    ring.run_once(false);
    const std::uint64_t one = 1;
    ASSERT_EQ(::write(event.get(), &one, sizeof(one)), 8);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (poll.pending() && std::chrono::steady_clock::now() < deadline) {
        ring.run_once(false);
    }
    EXPECT_EQ(poll.results.size(), 1u);
}

TEST(IoThread, AWakeUpIsNotLostWhenItComesBeforeTheWait) {
    std::atomic<int> rounds{0};
    IoThread thread({.name = "wake-test"}, [&](IoThread& self) {
        Ring ring(8);
        WakeOperation wake(ring, self);
        while (!self.stop_requested()) {
            ring.run_once(true);
            rounds.fetch_add(1);
            rounds.notify_all();
        }
        wake.disarm();
        while (ring.pending() > 0) {
            ring.run_once(true);
        }
    });
    thread.wake();
    thread.start();
    rounds.wait(0);
    EXPECT_GE(rounds.load(), 1);
}

}  // namespace nbdm
