// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "iothread/io_thread.h"
#include "iothread/memory_budget.h"
#include "iothread/unique_fd.h"
#include "server/export.h"
#include "server/socket_stream.h"

namespace nbdm {

// One client, from accept to close, on an iothread of its own: negotiate, serve, close.
//
// Threads: constructed, started and destroyed by the main thread; request_stop(), abandon() and
//          the getters may be called by it while the connection lives. The rest is the iothread's.
class Connection {
  public:
    struct Options {
        std::uint64_t id = 0;  // shown, and in the thread's name
        std::string peer;      // for messages
        std::chrono::seconds handshake_timeout{0};
        std::chrono::seconds request_timeout{0};
        int cpu = -1;
        int done_fd = -1;                // an eventfd that is written when done() has become true
        MemoryBudget* memory = nullptr;  // for the data of requests; outlives the connection
    };

    // `socket` is non-blocking and connected. `exports` outlives the connection.
    Connection(UniqueFd socket, Options options, const ExportTable& exports);

    void start() { thread_.start(); }
    // What was received is finished and answered, then the connection ends.
    void request_stop() noexcept { thread_.request_stop(); }
    // Cuts the socket: for a peer that does not take its answers.
    void abandon() noexcept;
    [[nodiscard]] bool done() const noexcept { return done_.load(std::memory_order_acquire); }

    [[nodiscard]] std::uint64_t id() const noexcept { return options_.id; }
    [[nodiscard]] const std::string& peer() const noexcept { return options_.peer; }
    [[nodiscard]] int cpu() const noexcept { return options_.cpu; }
    [[nodiscard]] int tid() const noexcept { return thread_.tid(); }
    // Null while it negotiates.
    [[nodiscard]] Export* served() const noexcept {
        return served_.load(std::memory_order_acquire);
    }
    // Of one that is served: nobody waits for what it asks, a mirror's for example.
    [[nodiscard]] bool background() const noexcept { return background_; }
    [[nodiscard]] const Statistics& statistics() const noexcept { return statistics_; }
    [[nodiscard]] std::chrono::system_clock::time_point since() const noexcept { return since_; }

  private:
    void run() noexcept;
    [[nodiscard]] DisconnectReason negotiate_and_serve();
    void let_client_read() noexcept;

    const Options options_;
    const ExportTable& exports_;
    const UniqueFd socket_;
    const std::chrono::system_clock::time_point since_ = std::chrono::system_clock::now();
    bool background_ = false;  // final before served_ is set
    std::atomic<Export*> served_{nullptr};
    Statistics statistics_;
    std::atomic<bool> done_{false};
    IoThread thread_;  // last: joined before what it uses is gone
};

}  // namespace nbdm
