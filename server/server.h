// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <event2/event.h>

#include "control/event.h"
#include "iothread/memory_budget.h"
#include "iothread/unique_fd.h"
#include "server/connection.h"
#include "server/export.h"
#include "server/hand_overs.h"
#include "server/hold.h"
#include "server/kept_trackers.h"
#include "server/listener.h"
#include "server/ownership.h"

namespace nbdm {

constexpr std::size_t kDefaultBufferBytes = std::size_t{1} << 30;

// What the command line says of the server as a whole.
struct ServerOptions {
    std::vector<ListenAddress> listen;  // empty: the default, where no socket is inherited
    std::vector<ExportOptions> exports;
    std::vector<std::string> take_ownership;  // export names
    std::vector<int> cpus;                    // iothreads are pinned to them in turn; empty: not
    std::string control_path;
    std::string state_dir;
    std::size_t max_connections = 256;
    std::size_t buffer_bytes = kDefaultBufferBytes;  // of all connections together
    std::chrono::seconds handshake_timeout{10};
    std::chrono::seconds request_timeout{300};
};

// The daemon: exports, listeners, connections, holds, hand-overs. One loop in the main thread; each
// connection has a thread of its own, and so has each record of a hand-over.
//
// Threads: the main thread only. Fails: the constructor throws; a sentence says what and why.
class Server {
  public:
    // `inherited`: sockets that listen already.
    Server(event_base* base, ServerOptions options, std::vector<UniqueFd> inherited);
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    ~Server();

    // Makes the --take-ownership of the command line durable, disk by disk. Call when nothing else
    // can fail any more: a server that does not serve has taken nothing.
    void take_ownership();
    // The trackers that the last server has kept stand again. Before any client is served, and
    // after everything else that may fail: they are kept no more.
    void restore_trackers();
    // Logs where it listens: everything that could fail at the start has succeeded.
    void announce() const;
    [[nodiscard]] bool draining() const noexcept { return draining_; }
    // Accepts no more clients; the ones there are finish what they asked for, and are cut off
    // kDrainTime later. The loop ends when the last is gone and no disk is being handed over.
    void drain();
    // When the loop has ended: keeps the trackers for the next server, unless a client is left.
    void keep_trackers() const;

    [[nodiscard]] ExportTable& exports() noexcept { return exports_; }
    [[nodiscard]] const std::list<Connection>& connections() const noexcept { return connections_; }
    // Clients at a time: what the command line says, or what there are descriptors for.
    [[nodiscard]] std::size_t max_connections() const noexcept { return max_connections_; }
    // What requests' data is taken from.
    [[nodiscard]] const MemoryBudget& memory() const noexcept { return memory_; }
    [[nodiscard]] std::vector<std::string> uris(const Export& served) const;
    // For people: what it does at the moment.
    [[nodiscard]] std::string status() const;
    [[nodiscard]] std::size_t connections_to(const Export& served) const;
    enum class Clients { all, not_in_background };
    // Adds everything that such clients have asked of the export, on all connections ever made to
    // it, to `sum`.
    void add_statistics(const Export& served, Clients which, Statistics& sum) const;

    // One for each export.
    [[nodiscard]] Hold& hold_of(const Export& served);
    // The clients of a disk that has moved away are refused their writes and, some seconds later,
    // disconnected.
    [[nodiscard]] HandOvers& hand_overs() noexcept { return hand_overs_; }
    [[nodiscard]] const HandOvers& hand_overs() const noexcept { return hand_overs_; }

  private:
    // The clients that a disk that has moved away had at that moment, and when they are let go.
    struct Farewell {
        Server& server;
        const Export& served;
        std::uint64_t before;  // connections made later are read-only, and stay
        EventPointer timer;
    };

    [[nodiscard]] std::unique_ptr<Export> make_export(const ExportOptions& options) const;
    void open_export(const ExportOptions& options);
    void say_where_it_is(Export& only_read);
    void open_incoming(Export& opened, bool moved_away);
    void accepted(UniqueFd socket, std::string peer);
    void reap();
    void check_holds();
    void settled(const std::vector<HandOvers::Disk>& moved);
    void disconnect_clients_of(const Export& served);
    [[nodiscard]] bool is_drained() const;
    void end_when_drained();
    void abandon_holds();
    void watch(int fd, event_callback_fn handler);

    event_base* const base_;
    const ServerOptions options_;
    const OwnershipRecords ownership_;
    const KeptTrackers kept_trackers_;
    const std::size_t max_connections_;
    // Who waits must not take the place of the mirrors that are waited for.
    WaitingPlaces waiting_places_;
    const UniqueFd done_fd_;     // rung by a connection that ended
    const UniqueFd drained_fd_;  // rung by a writer that left a held export

    ExportTable exports_;
    std::map<const Export*, std::unique_ptr<Hold>> holds_;
    HandOvers hand_overs_;
    std::vector<const Export*> taken_;  // by --take-ownership
    std::vector<std::string> moved_;    // a sentence for each export that stays retired
    MemoryBudget memory_;
    std::list<Connection> connections_;
    std::uint64_t next_connection_ = 1;
    std::vector<std::unique_ptr<Listener>> listeners_;
    std::vector<EventPointer> watches_;
    std::list<Farewell> farewells_;  // at most one for each export
    EventPointer drain_timer_;
    bool draining_ = false;
};

}  // namespace nbdm
