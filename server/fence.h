// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "iothread/io_thread.h"

namespace nbdm {

// Which mirror a connection belongs to, and which of its attempts: metadata contexts
// nbd-mirror:session:ID:EPOCH and nbd-mirror:commit:ID:EPOCH.
struct SessionName {
    static constexpr std::string_view kSession = "nbd-mirror:session:";
    static constexpr std::string_view kCommit = "nbd-mirror:commit:";

    std::string id;  // letters, digits, '.', '_' and '-', 1 to 64 of them
    std::uint64_t epoch = 0;

    // Nothing when it is no such context's name.
    [[nodiscard]] static std::optional<SessionName> parse(std::string_view context,
                                                          std::string_view prefix);
};

// Keeps what a mirror has sent and given up from reaching the disk after what it sends now: a write
// on a lost connection can sit unread in this server's socket, while the mirror has long sent newer
// data on another. A connection of a higher epoch ends those of lower ones before it goes on, and
// from then on none of a lower epoch begins.
//
// Threads: any.
class Fence {
  public:
    // One connection's place in its session.
    struct Member {
        std::uint64_t epoch = 0;
        IoThread* thread = nullptr;
        std::atomic<bool> shut_out{false};
    };

    // A connection of a session, from its selection to the end of all it has under way.
    class Membership {
      public:
        Membership() = default;
        Membership(Membership&& other) noexcept;
        Membership& operator=(Membership&& other) noexcept;
        Membership(const Membership&) = delete;
        Membership& operator=(const Membership&) = delete;
        ~Membership() { leave(); }

        void leave() noexcept;
        [[nodiscard]] bool stands() const noexcept { return member_ != nullptr; }
        // A higher epoch has come: nothing of this connection may reach the disk any more.
        [[nodiscard]] bool shut_out() const noexcept {
            return member_ != nullptr && member_->shut_out.load(std::memory_order_acquire);
        }

      private:
        friend class Fence;
        Fence* fence_ = nullptr;
        Member* member_ = nullptr;
    };

    Fence() = default;
    Fence(const Fence&) = delete;
    Fence& operator=(const Fence&) = delete;
    ~Fence();  // asserts that no connection is left

    enum class Entered { yes, too_late, still_busy, another_session };
    // Whether connections of other sessions may be there; `awaited`: not after kOthersMayLeave;
    // `refused`: nor at all, and the session that came last is this one.
    enum class Others { allowed, awaited, refused };
    // Why not, for the client; empty for `yes`.
    [[nodiscard]] static std::string_view why_not(Entered entered) noexcept;
    // `thread` is the caller's. Returns when no connection of a lower epoch has anything under way.
    // `too_late`: a higher epoch has come; `still_busy`: that did not happen by `deadline`, or the
    // thread is to stop; `another_session`: others are there. `place` is only taken with `yes`.
    [[nodiscard]] Entered enter(const SessionName& name, Others others, IoThread& thread,
                                std::chrono::steady_clock::time_point deadline, Membership& place);

    // As long as the connections of a mirror that was killed may take to end.
    static constexpr std::chrono::seconds kOthersMayLeave{3};

    // Sessions that have a connection.
    [[nodiscard]] std::size_t standing() const;
    // A number of the sessions that have entered, in their order, and of this fence; 0 for one and
    // none.
    [[nodiscard]] std::uint32_t order() const noexcept { return order_.load(); }

  private:
    // Epochs of this many sessions that have no connection are remembered.
    static constexpr std::size_t kMaxIdleSessions = 64;

    struct Session {
        std::uint64_t epoch = 0;  // the highest that came
        std::uint64_t used = 0;   // grows with each entry to any session
        std::list<Member> members;
    };
    void leave(Member& member) noexcept;
    [[nodiscard]] bool others_stand_locked(const std::string& id) const;
    void forget_oldest_locked();

    const std::uint32_t seed_ = std::random_device()();
    std::atomic<std::uint32_t> order_{0};
    mutable std::mutex mutex_;  // guards all below
    std::condition_variable left_;
    std::uint64_t entries_ = 0;
    std::string last_entered_;  // its id
    std::map<std::string, Session> sessions_;
};

}  // namespace nbdm
