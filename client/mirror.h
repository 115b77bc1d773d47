// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "client/cancellation.h"
#include "client/cutover_requests.h"
#include "client/hooks.h"
#include "client/job_limits.h"
#include "client/job_status.h"
#include "client/lost_connections.h"
#include "client/mirrored_disks.h"
#include "client/readiness.h"
#include "client/stall_watch.h"
#include "client/writer_hold.h"
#include "client/writer_throttle.h"

namespace nbdm {

enum class Handover { retire, release };

struct MirrorOptions {
    std::string job;
    std::vector<DiskMirror::Options> disks;  // at least one; exports of one server
    bool resume = false;
    bool cut_over_when_ready = false;
    Handover handover = Handover::retire;
    bool may_throttle = true;  // the source's writers, so that the job gets ready
    // How long a connection that is lost is tried to be replaced.
    std::chrono::seconds reconnect_timeout{30};
    Hooks::Options hooks;
};

// One live mirror of all disks of a guest, top to bottom: prepare, copy everything, catch up with
// the writers, be ready, cut over, of all disks at one moment. Until the hand-over a failure of
// anything leaves the sources as they were, and lost connections are made again.
//
// Threads: run() on a thread of its own.
class Mirror {
  public:
    // All outlive it. Throws std::system_error when there is no such directory of hooks.
    Mirror(MirrorOptions options, JobStatus& status, JobLimits& limits, CutoverRequests& cutovers,
           const Cancellation& cancellation);

    // Returns the line to end with once the disks are handed over. Throws JobError, Cancelled or
    // std::system_error; writers go on. After a cancellation the trackers are gone; otherwise the
    // job can be resumed. The hooks were told of the end by then.
    [[nodiscard]] std::string run();

  private:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] std::string mirror_and_hand_over();
    // Every change of phase of a mirror that goes on, known to the status and to the hooks.
    void enter(Phase phase);
    void copy_everything();
    // Until the disks are handed over.
    [[nodiscard]] std::string stay_in_step();
    DiskMirror::Round catch_up(DiskMirror::Haste haste, const std::function<void()>& tick);
    DiskMirror::Round catch_up();
    [[nodiscard]] bool cutover_wanted() const;
    [[nodiscard]] bool may_cut_over() const;
    void wait_while_paused();
    // The line to end with, or nothing when it was given up.
    [[nodiscard]] std::optional<std::string> cut_over();
    // `tell` is called when it is given up before this can throw that.
    [[nodiscard]] WriterHold::Done hand_over(
        const std::function<void(const std::exception&)>& tell);
    // A cutover came to nothing: says why, and goes on in `next`. The next automatic attempt waits.
    void given_up(const std::string& reason, Phase next);
    // Returns when all connections stand again.
    void connect_again(const std::string& reason);
    void look_around();
    void watch_progress(Clock::time_point now);

    const MirrorOptions options_;
    JobStatus& status_;
    JobLimits& limits_;
    CutoverRequests& cutovers_;
    const Cancellation& cancellation_;

    // Of run().
    Hooks hooks_;
    MirroredDisks disks_;
    LostConnections lost_connections_;
    Readiness readiness_;
    bool retired_ = false;  // at the source; the targets have to be told
    Clock::time_point last_look_;
    StallWatch stall_watch_;
    WriterThrottle throttle_;
    double dirty_bytes_per_s_ = 0;  // before the last round
    // When a cutover that nobody asks for by hand may be tried again.
    Clock::time_point next_attempt_;
    std::chrono::milliseconds attempt_delay_;
};

}  // namespace nbdm
