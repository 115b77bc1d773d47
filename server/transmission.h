// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "iothread/buffer_pool.h"
#include "iothread/io_thread.h"
#include "iothread/memory_budget.h"
#include "iothread/ring.h"
#include "iothread/unique_fd.h"
#include "server/executor.h"
#include "server/handshake.h"
#include "server/incoming_payload.h"
#include "server/patience.h"
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
    ~Transmission() = default;

    // Serves until the connection is over. Nothing is in the kernel any more afterwards.
    [[nodiscard]] DisconnectReason run();

    // From ReplyQueue.
    void replied(Request& request) noexcept;
    // It is not to be answered, or was.
    void release(Request& request) noexcept {
        request.buffer.reset();
        free_requests_.push_back(&request);
    }

  private:
    using Clock = std::chrono::steady_clock;
    enum class State { closed, closing, draining, active };
    void step_down(State state, DisconnectReason reason) noexcept;

    // A request: there may be more, once others have had their turn. No room: for a slot or a
    // buffer, which a completion will free.
    enum class Parsed { request, incomplete, no_room };
    [[nodiscard]] Parsed process_received();
    [[nodiscard]] Parsed parse_request();
    [[nodiscard]] Parsed begin_next();
    [[nodiscard]] bool write_staged(Request& request);
    [[nodiscard]] bool take_payload();
    void receive_more();
    void start_waiting(bool blocked);
    [[nodiscard]] bool keeps_writes_waiting() const noexcept {
        return executor_.keeps_waiting() || next_.kept_waiting;
    }
    [[nodiscard]] bool has_lost_client() const noexcept;
    void send_replies();
    void give_up_answering(DisconnectReason reason);
    void note_progress() noexcept {
        if (!receiver_.armed()) {
            patience_.received(now_);
        }
    }
    void look_at_client() noexcept;
    void disconnect_if_late();
    void wait_for_work(bool wait);

    [[nodiscard]] bool is_stopped() const noexcept {
        return reason_ == DisconnectReason::server_stopped ||
               reason_ == DisconnectReason::export_retired;
    }
    void drop_unanswered() noexcept;
    void close();

    // Fixed after construction.
    IoThread& thread_;
    const Session session_;
    Export& export_;
    const std::string peer_;
    Statistics& statistics_;
    const RequestRules rules_;
    // The disk once more, opened by this connection.
    const UniqueFd own_fd_;

    // In this order: the share and the ring outlive the pool, all outlive the requests.
    MemoryBudget::Member memory_;
    Ring ring_;
    BufferPool buffers_;
    WakeOperation wake_;
    Receiver receiver_;
    ReplyQueue replies_;
    ReplyWriter answer_;
    Executor executor_;
    std::unique_ptr<std::array<Request, kMaxRequests>> requests_;
    std::vector<Request*> free_requests_;

    // The request that is to begin next, and what it waits for is memory; null: none.
    struct Next {
        Request* request = nullptr;
        wire::Error error = wire::Error::none;  // what is wrong with it
        std::uint64_t payload_bytes = 0;        // that follow its header
        bool kept_waiting = false;              // by a hold that had no room for it
    };
    Next next_;
    IncomingPayload incoming_;

    Patience patience_;
    // Read twice in each round: when what it parses has arrived, when what it sends is ready.
    Clock::time_point now_;
    Clock::time_point busy_at_;  // a request was begun or under way
    State state_ = State::active;
    DisconnectReason reason_ = DisconnectReason::connection_lost;
};

}  // namespace nbdm
