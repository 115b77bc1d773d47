// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "iothread/extent_memory.h"
#include "iothread/io_thread.h"
#include "iothread/ring.h"
#include "server/block_status.h"
#include "server/export.h"
#include "server/handshake.h"
#include "server/reply_writer.h"
#include "server/request.h"
#include "server/statistics.h"
#include "server/write_gate.h"

namespace nbdm {

// Does on the export what one connection's requests ask for, in no order of its own: holes, write
// gate, disk, dirty maps. Each request ends with an answer, whatever happens to it.
//
// Threads: the connection's iothread, the ring's.
class Executor {
  public:
    using Clock = std::chrono::steady_clock;

    struct Surroundings {
        const std::string& peer;  // for messages
        Statistics& statistics;
    };
    // All that is referred to outlives this; `own_fd` is the disk once more, opened by this
    // connection (DiskFile::open_again).
    Executor(IoThread& thread, Ring& ring, int own_fd, const Session& session, ReplyWriter& answer,
             Surroundings surroundings);
    Executor(const Executor&) = delete;
    Executor& operator=(const Executor&) = delete;
    ~Executor() = default;  // nothing is under way

    // Before its memory is leased: where it has holes, and whether it needs the memory at all.
    void plan(Request& request);
    // How much memory it needs from its first step on. Of one that is planned.
    [[nodiscard]] std::size_t memory_for(const Request& request) const noexcept;
    // It has its memory and, if it comes with some, its payload.
    void start(Request& request);
    // A write that can begin at once and needs its payload only during this call. False: it needs a
    // buffer, and start().
    [[nodiscard]] bool write_staged(Request& request, std::span<const std::byte> payload);
    // It is answered with an error instead.
    void refuse(Request& request, wire::Error error);
    // What the payload of a block status request asks for; anything but Error::none: refuse it.
    [[nodiscard]] wire::Error read_payload(Request& request, std::span<const std::byte> payload);

    // Starts the writes that wait and need to no more.
    void start_waiting(Clock::time_point now);
    // When that is to be called again, if writes wait for their time.
    [[nodiscard]] std::optional<Clock::time_point> next_start() const noexcept;
    // The thread is about to do something else than to start writes.
    void end_write_turn() noexcept { write_turn_ = {}; }
    // Writes are kept waiting, for their time or for the end of a hold.
    [[nodiscard]] bool keeps_waiting() const noexcept { return held_ || !slowed_.empty(); }
    // Writes wait for others, of this connection or of another, which are over soon.
    [[nodiscard]] bool waits_for_writes() const noexcept { return !waiting_.empty(); }
    // Would another write of so many bytes be one too many to wait for the end of a hold, where
    // `limit` may wait?
    [[nodiscard]] bool is_parking_full(std::size_t bytes, std::size_t limit) const noexcept;
    // One that waits and will not be started any more; null: none does.
    [[nodiscard]] Request* take_waiting() noexcept;

    // Since it was asked last, a request was answered that has taken this thread so long that the
    // connection's other work comes before the next one.
    [[nodiscard]] bool take_long_step() noexcept { return std::exchange(long_step_, false); }

    // Nothing is on the disk and nothing waits.
    [[nodiscard]] bool idle() const noexcept {
        return on_disk_ == 0 && waiting_.empty() && slowed_.empty();
    }

    // From Request.
    void disk_finished(Request& request, int error) noexcept;

  private:
    void continue_read(Request& request);
    void write(Request& request);
    void write_data(Request& request, const std::byte* from);
    [[nodiscard]] bool enter_and_write(Request& request);
    [[nodiscard]] bool write_alone(Request& request) noexcept;
    [[nodiscard]] bool needs_disk_alone(const Request& request) const noexcept;
    void read_ahead(Request& request);
    void finish(Request& request, int error) noexcept;
    void log_failure(const Request& request, int error);

    Ring& ring_;
    const int own_fd_;
    const Session& session_;
    Export& export_;
    ReplyWriter& answer_;
    const std::string& peer_;
    Statistics& statistics_;
    ExtentMemory extents_;
    BlockStatus block_status_;

    const WriteGate::Attachment attachment_;
    WriteGate::Lane& lane_;
    // Writes, received in full, that the throttle keeps waiting, in the order of their time.
    std::deque<Request*> slowed_;
    // Those that wait for the gate, or for this connection's other writes, first come first served.
    std::deque<Request*> waiting_;
    bool held_ = false;        // the first of them waits for the end of a hold
    std::size_t on_disk_ = 0;  // requests started and not finished
    // Taken by the first long buffered write of a batch, until something else is begun.
    std::unique_lock<std::mutex> write_turn_;
    int logged_failures_ = 0;
    bool long_step_ = false;
};

}  // namespace nbdm
