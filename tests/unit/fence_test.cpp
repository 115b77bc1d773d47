// SPDX-License-Identifier: Apache-2.0
#include "server/fence.h"

#include <chrono>
#include <future>
#include <string>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

// A connection whose thread is never started: only whether it is asked to stop is looked at.
struct Client {
    Fence::Entered enter(Fence& fence, const std::string& id, std::uint64_t epoch,
                         steady_clock::duration patience = seconds(30)) {
        return fence.enter({id, epoch}, Fence::Others::allowed, thread,
                           steady_clock::now() + patience, place);
    }
    IoThread thread{{.name = "client"}, [](IoThread&) {}};
    Fence::Membership place;
};

TEST(Fence, ConnectionsOfOneEpochStandSideBySideAndSessionsDoNotKnowEachOther) {
    Fence fence;
    Client first;
    Client second;
    Client other;
    EXPECT_EQ(first.enter(fence, "vm1", 7), Fence::Entered::yes);
    EXPECT_EQ(second.enter(fence, "vm1", 7), Fence::Entered::yes);
    EXPECT_EQ(other.enter(fence, "vm2", 8), Fence::Entered::yes);
    EXPECT_FALSE(first.place.shut_out());
    EXPECT_FALSE(first.thread.stop_requested());
}

TEST(Fence, AHigherEpochWaitsUntilTheLowerOnesHaveLeft) {
    Fence fence;
    Client old;
    Client old_too;
    ASSERT_EQ(old.enter(fence, "vm1", 1), Fence::Entered::yes);
    ASSERT_EQ(old_too.enter(fence, "vm1", 1), Fence::Entered::yes);
    Client fresh;
    auto entered = std::async(std::launch::async, [&] { return fresh.enter(fence, "vm1", 2); });
    while (!old.place.shut_out() || !old_too.place.shut_out()) {
    }
    EXPECT_TRUE(old.thread.stop_requested());
    old.place.leave();
    EXPECT_EQ(entered.wait_for(seconds(0)), std::future_status::timeout);
    old_too.place.leave();
    EXPECT_EQ(entered.get(), Fence::Entered::yes);
}

TEST(Fence, ALowerEpochNeverEntersAgain) {
    Fence fence;
    {
        Client fresh;
        ASSERT_EQ(fresh.enter(fence, "vm1", 2), Fence::Entered::yes);
    }
    Client late;
    EXPECT_EQ(late.enter(fence, "vm1", 1), Fence::Entered::too_late);
}

TEST(Fence, WhoseRequestsDoNotEndKeepsTheNextEpochOut) {
    Fence fence;
    Client stuck;
    ASSERT_EQ(stuck.enter(fence, "vm1", 1), Fence::Entered::yes);
    Client fresh;
    EXPECT_EQ(fresh.enter(fence, "vm1", 2, std::chrono::milliseconds(10)),
              Fence::Entered::still_busy);
    stuck.place.leave();
    EXPECT_EQ(fresh.enter(fence, "vm1", 2), Fence::Entered::yes);
}

TEST(Fence, WhoWaitsIsShutOutByAHigherEpochStill) {
    Fence fence;
    Client stuck;
    ASSERT_EQ(stuck.enter(fence, "vm1", 1), Fence::Entered::yes);
    Client second;
    Client third;
    auto entering = std::async(std::launch::async, [&] { return second.enter(fence, "vm1", 2); });
    while (!stuck.place.shut_out()) {
    }
    auto entered = std::async(std::launch::async, [&] { return third.enter(fence, "vm1", 3); });
    EXPECT_EQ(entering.get(), Fence::Entered::too_late);
    stuck.place.leave();
    EXPECT_EQ(entered.get(), Fence::Entered::yes);
}

TEST(SessionName, IsReadExactly) {
    const auto name = SessionName::parse("nbd-mirror:session:vm-1.a_B:18446744073709551615",
                                         SessionName::kSession);
    ASSERT_TRUE(name);
    EXPECT_EQ(name->id, "vm-1.a_B");
    EXPECT_EQ(name->epoch, UINT64_MAX);
    for (const std::string id_and_epoch : {"", ":", "x", "x:", ":1", "x:1:", "x:1:2", "x:-1",
                                           "x: 1", "x:0x1", "x y:1", "x:18446744073709551616"}) {
        EXPECT_FALSE(
            SessionName::parse("nbd-mirror:session:" + id_and_epoch, SessionName::kSession))
            << id_and_epoch;
    }
    EXPECT_FALSE(SessionName::parse("nbd-mirror:session:" + std::string(65, 'x') + ":1",
                                    SessionName::kSession));
    EXPECT_FALSE(SessionName::parse("base:allocation", SessionName::kSession));
}

TEST(Fence, ItIsKnownHowManySessionsStandAndThatAnotherHasCome) {
    Fence fence;
    {
        Client first;
        Client again;
        ASSERT_EQ(first.enter(fence, "vm1", 1), Fence::Entered::yes);
        ASSERT_EQ(again.enter(fence, "vm1", 1), Fence::Entered::yes);
        EXPECT_EQ(fence.standing(), 1U);
        EXPECT_EQ(fence.order(), 0U);
        Client other;
        ASSERT_EQ(other.enter(fence, "vm2", 1), Fence::Entered::yes);
        EXPECT_EQ(fence.standing(), 2U);
        EXPECT_NE(fence.order(), 0U);
    }
    EXPECT_EQ(fence.standing(), 0U);
    Client first;
    const auto others = fence.order();
    ASSERT_EQ(first.enter(fence, "vm1", 2), Fence::Entered::yes);
    EXPECT_NE(fence.order(), others);
    const auto own = fence.order();
    Client again;
    ASSERT_EQ(again.enter(fence, "vm1", 3, seconds(0)), Fence::Entered::still_busy);
    EXPECT_EQ(fence.order(), own);
}

TEST(Fence, OthersAreWaitedForOrRefused) {
    Fence fence;
    Client old;
    ASSERT_EQ(old.enter(fence, "vm1", 1), Fence::Entered::yes);
    Client next;
    const auto enter = [&](Fence::Others others, seconds patience) {
        return fence.enter({"vm2", 1}, others, next.thread, steady_clock::now() + patience,
                           next.place);
    };
    EXPECT_EQ(enter(Fence::Others::refused, seconds(30)), Fence::Entered::another_session);
    EXPECT_EQ(enter(Fence::Others::awaited, seconds(0)), Fence::Entered::another_session);
    auto entered =
        std::async(std::launch::async, [&] { return enter(Fence::Others::awaited, seconds(30)); });
    old.place.leave();
    EXPECT_EQ(entered.get(), Fence::Entered::yes);
    // The first one does not hand over what the other may have overwritten.
    next.place.leave();
    Client commit;
    EXPECT_EQ(fence.enter({"vm1", 2}, Fence::Others::refused, commit.thread, steady_clock::now(),
                          commit.place),
              Fence::Entered::another_session);
}

}  // namespace
}  // namespace nbdm
