// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <event2/event.h>

#include "control/event.h"
#include "server/export.h"

namespace nbdm {

// How a hold ended, as the source measured it.
struct HoldTimes {
    std::chrono::nanoseconds longest_wait{0};  // of a write that was kept waiting; 0: none was
    std::chrono::nanoseconds held{0};
};

// The hold on one export's writers, with its lease: a holder that does not renew it in time loses
// it, and the writers go on by themselves. It does not end while it is being recorded that the disk
// has moved away, since nobody can say meanwhile who may write to it.
//
// Threads: the main thread, inside the event loop.
class Hold {
  public:
    using Clock = std::chrono::steady_clock;

    // `base` and `held` outlive this.
    Hold(event_base* base, Export& held);
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold();  // writers go on

    enum class Begun { yes, held_by_another, retired };
    enum class Drained { yes, lapsed, given_up };
    // `drained` is called once, from the loop: when no write is in flight any more, or when the
    // lease lapsed or the hold was given up before that.
    [[nodiscard]] Begun begin(std::chrono::milliseconds lease,
                              std::function<void(Drained)> drained);
    // False: it is not (any longer) held by `id`.
    [[nodiscard]] bool renew(const std::string& id, std::chrono::milliseconds lease);
    // `released` is called once, now or, during a retirement, when it is over. Nothing: it was not
    // (any longer) held by `id`.
    using Released = std::function<void(const std::optional<HoldTimes>&)>;
    void release(const std::string& id, Released released);

    // Held by `id`, and the writers are all out.
    [[nodiscard]] bool may_retire(const std::string& id) const;
    // `lost` is called once when the hold ends otherwise than by retire(); empty: nobody asks.
    void on_lost(std::function<void()> lost) { on_lost_ = std::move(lost); }
    // Of a hold that may be retired, and does not retire already: it does not end from now on but
    // by one of the other two.
    void begin_retirement();
    // The writers are refused for good.
    HoldTimes retire();
    // The lease goes on, if there is some left of it. Nothing happens without a retirement.
    void cancel_retirement();

    // Ends the hold, if there is one and it does not retire, whoever has it: the server stops, or
    // the holder has left before it learned its id. Writers go on.
    void abandon();

    [[nodiscard]] bool held() const noexcept { return !id_.empty(); }
    [[nodiscard]] bool retiring() const noexcept { return retiring_; }
    [[nodiscard]] const std::string& id() const noexcept { return id_; }
    // How often there was one.
    [[nodiscard]] std::uint64_t begun() const noexcept { return begun_count_; }
    // Some write came back: looks whether it was the last.
    void check_drained();

  private:
    [[nodiscard]] bool is_valid(const std::string& id) const;
    enum class End { retire, release };
    HoldTimes end(End how, Drained drained);
    void answer_releases();
    void arm(std::chrono::milliseconds lease);
    void await_lease_end();
    void lapsed();

    Export& export_;
    const EventPointer timer_;
    std::string id_;  // empty: not held
    bool drained_ = false;
    bool retiring_ = false;
    std::function<void(Drained)> on_drained_;
    std::function<void()> on_lost_;
    std::vector<std::pair<std::string, Released>> releases_;  // by id; asked for meanwhile
    std::uint64_t begun_count_ = 0;
    Clock::time_point begun_;
    Clock::time_point lease_end_;
};

}  // namespace nbdm
