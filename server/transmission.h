// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "iothread/buffer_pool.h"
#include "iothread/io_thread.h"
#include "iothread/memory_budget.h"
#include "iothread/ring.h"
#include "iothread/unique_fd.h"
#include "server/block_status.h"
#include "server/handshake.h"
#include "server/receiver.h"
#include "server/reply_queue.h"
#include "server/reply_writer.h"
#include "server/request.h"
#include "server/request_limits.h"
#include "server/socket_stream.h"

namespace nbdm {

// The transmission phase of one connection: receive, parse, validate, disk, dirty maps, reply.
// Requests complete out of order; no free slot or buffer means that receiving stops.
//
// State only falls: active (serving) > draining (nothing more is received; what was is finished
// and answered) > closing (nothing is sent; the kernel finishes what it has) > closed.
//
// Threads: everything on the connection's iothread, the ring's.
class Transmission {
  public:
    struct Surroundings {
        std::string peer;  // for messages
        std::chrono::seconds request_timeout{0};
        MemoryBudget& memory;
        Statistics& statistics;
    };
    Transmission(IoThread& thread, int fd, Session session, Surroundings surroundings);
    Transmission(const Transmission&) = delete;
    Transmission& operator=(const Transmission&) = delete;
    ~Transmission();

    // Serves until the connection is over. Nothing is in the kernel any more afterwards.
    [[nodiscard]] DisconnectReason run();

    // From Request and ReplyQueue.
    void disk_finished(Request& request, int error) noexcept;
    void replied(Request& request) noexcept;

  private:
    using Clock = std::chrono::steady_clock;
    enum class State { closed, closing, draining, active };
    void step_down(State state, DisconnectReason reason) noexcept;

    // True when requests wait for a slot or a buffer that a completion will free.
    [[nodiscard]] bool process_received();
    enum class Parsed { request, incomplete, no_room };
    [[nodiscard]] Parsed parse_request();
    [[nodiscard]] Parsed accept_request(const RequestHead& head);
    [[nodiscard]] bool take_payload();
    void receive_more();
    [[nodiscard]] Buffer lease(std::size_t bytes);
    void disconnect_if_late();
    void wait_for_work(bool wait);
    [[nodiscard]] static std::size_t memory_for(const Request& request) noexcept;

    void start(Request& request);
    void plan_read(Request& request);
    void continue_read(Request& request);
    void write(Request& request);
    void start_waiting();
    [[nodiscard]] bool enter_and_write(Request& request);
    void write_alone(Request& request) noexcept;
    [[nodiscard]] bool needs_disk_alone(const Request& request) const noexcept;
    void read_ahead(Request& request);

    void finish(Request& request, int error) noexcept;
    void reply_error(Request& request, wire::Error error);
    void log_failure(const Request& request, int error);
    void release(Request& request) noexcept;

    void drop_unanswered() noexcept;
    void close();

    // Fixed after construction.
    IoThread& thread_;
    const Session session_;
    Export& export_;
    const std::string peer_;
    const Clock::duration request_timeout_;
    MemoryBudget& memory_;
    Statistics& statistics_;
    const RequestRules rules_;
    // The disk once more, opened by this connection: for all of its I/O.
    const UniqueFd own_fd_;

    // In this order: the ring outlives the pool, and both outlive the requests that use them.
    Ring ring_;
    BufferPool buffers_;
    WakeOperation wake_;
    Receiver receiver_;
    ReplyQueue replies_;
    ReplyWriter answer_;
    BlockStatus block_status_;
    std::unique_ptr<std::array<Request, kMaxRequests>> requests_;
    std::vector<Request*> free_requests_;

    WriteGate::Lane& lane_;
    // Writes, received in full, that the gate keeps waiting, first come first served.
    std::deque<Request*> waiting_;
    std::size_t on_disk_ = 0;  // requests started and not finished
    // Taken by the first buffered write of a round, for all of the round's: a batch of small writes
    // pays for it once.
    std::unique_lock<std::mutex> write_turn_;

    // A request whose payload is still coming, how much of it is, and why it will be refused, if it
    // will: its payload is then dropped, so that the stream stays in step.
    Request* incoming_ = nullptr;
    std::uint64_t incoming_bytes_ = 0;
    std::uint64_t incoming_left_ = 0;
    wire::Error incoming_refusal_ = wire::Error::none;

    bool waits_for_memory_ = false;
    // Read twice in each round: when what it parses has arrived, when what it sends is ready.
    Clock::time_point now_;
    // When the client last sent something or was not asked to, and the same for what it takes.
    Clock::time_point received_at_;
    Clock::time_point sent_at_;
    // Since when other connections wait for memory; nothing when none does.
    std::optional<Clock::time_point> wanted_since_;
    // When the client is disconnected if it does not move; nothing when it owes nothing.
    std::optional<Clock::time_point> deadline_;
    State state_ = State::active;
    DisconnectReason reason_ = DisconnectReason::connection_lost;
    int logged_failures_ = 0;
};

}  // namespace nbdm
