// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>

#include "client/cancellation.h"
#include "client/copy.h"
#include "client/cutover_requests.h"
#include "client/engine.h"
#include "client/job_limits.h"
#include "client/job_status.h"
#include "client/source_server.h"
#include "client/stall_watch.h"
#include "client/writer_hold.h"

namespace nbdm {

enum class Handover { retire, release };

struct MirrorOptions {
    CopyOptions copy;  // the source is a server's export
    std::string job;
    std::uint32_t granularity_bytes = 64 << 10;
    bool cut_over_when_ready = false;
    Handover handover = Handover::retire;
};

// One live mirror, top to bottom: prepare, copy everything, catch up with the writers, be ready,
// cut over. Until the hand-over a failure of anything leaves the source as it was.
//
// Threads: run() on a thread of its own.
class Mirror {
  public:
    // All outlive it.
    Mirror(MirrorOptions options, JobStatus& status, JobLimits& limits, CutoverRequests& cutovers,
           const Cancellation& cancellation);

    // Returns the line to end with once the disk is handed over. Throws JobError, Cancelled or
    // std::system_error; writers go on and the tracker is gone.
    [[nodiscard]] std::string run();

  private:
    using Clock = std::chrono::steady_clock;
    struct Setup;

    void prepare(Setup& setup);
    void open_target(Setup& setup, std::uint64_t source_bytes);
    void copy_everything(Setup& setup);
    // Until the disk is handed over.
    [[nodiscard]] std::string stay_in_step(Setup& setup);
    // Freeze, copy, flush, acknowledge. Returns the bytes that the freeze found.
    std::uint64_t catch_up(Setup& setup, const std::function<void()>& tick);
    [[nodiscard]] bool would_be_ready(std::uint64_t dirty_bytes) const;
    [[nodiscard]] bool cutover_wanted() const;
    void wait_while_paused(Setup& setup);
    // The line to end with, or nothing when it was given up.
    [[nodiscard]] std::optional<std::string> cut_over(Setup& setup);
    // `tell` is called when it is given up before this can throw that.
    [[nodiscard]] WriterHold::Done hand_over(
        Setup& setup, const std::function<void(const std::exception&)>& tell);
    void given_up(const std::string& reason);
    void look_around(Setup& setup);
    void watch_progress(Clock::time_point now);

    const MirrorOptions options_;
    JobStatus& status_;
    JobLimits& limits_;
    CutoverRequests& cutovers_;
    const Cancellation& cancellation_;

    // Of run().
    double copy_rate_bytes_per_s_ = 0;  // 0: not known yet
    Clock::duration flush_time_{};
    Clock::time_point last_freeze_;
    Clock::time_point last_look_;
    StallWatch stall_watch_;
    // When a cutover that nobody asks for by hand may be tried again.
    Clock::time_point next_attempt_;
    std::chrono::milliseconds attempt_delay_;
};

}  // namespace nbdm
