// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/cancellation.h"
#include "client/location.h"
#include "client/opened_disk.h"
#include "control/http_client.h"
#include "iothread/range.h"

namespace nbdm {

// The server did not answer: whether it did what it was asked is not known.
class NoAnswer : public ConnectionLost {
  public:
    using ConnectionLost::ConnectionLost;
};

// The tracker does not stand any more: the server was started without it, or another mirror has
// begun.
class TrackerGone : public ConnectionLost {
  public:
    using ConnectionLost::ConnectionLost;
};

// What an export was asked for by its clients, but for those in the background like a mirror, and
// how long that took: counts that grow as long as the server runs.
struct ClientTimes {
    struct Kind {
        std::uint64_t requests = 0;
        std::uint64_t total_us = 0;
    };
    Kind reads;
    Kind writes;
    bool throttled = false;  // writes are delayed on purpose

    void add(const ClientTimes& other) noexcept;
};

// The nbd-mirror-server under the source disk, by its control socket: one export of it.
//
// Threads: one at a time. Fails: JobError with a sentence (NoAnswer when there was none);
//          Cancelled.
class SourceServer {
  public:
    // The server answers from its loop, in milliseconds; a durable record waits for a disk.
    static constexpr std::chrono::milliseconds kAnswerLimit{10'000};

    SourceServer(const Location& location, const Cancellation& cancellation);

    struct TrackerStatus {
        std::string name;
        std::uint64_t incarnation = 0;
        unsigned readers = 0;  // connections that have its map selected
        bool exclusive = false;
        std::uint64_t dirty_bytes = 0;           // not frozen
        std::uint64_t unacknowledged_bytes = 0;  // these, and what is frozen
    };
    struct ExportStatus {
        OpenedDisk disk;
        Location address;  // to read it, a Unix socket where there is one; shown as it was named
        std::string state;
        std::string moved_by;  // the job that has moved it away, if one has
        std::string moved_to;
        std::string moved_at;
        bool read_only = false;
        std::uint64_t size_bytes = 0;
        std::vector<TrackerStatus> trackers;
        std::vector<std::string> uris;
        ClientTimes clients;
    };
    // Throws JobError also when nobody can connect to the export.
    [[nodiscard]] ExportStatus status(std::chrono::milliseconds limit = kAnswerLimit,
                                      bool may_cancel = true);
    // Whether a client of the export has this address ("HOST:PORT", as NbdHandle::local_address()).
    [[nodiscard]] bool has_client(const std::string& address);

    // A tracker that this has started; a later one of the same name is another.
    struct Tracker {
        std::string name;
        std::uint64_t incarnation = 0;
    };
    // Starts a tracker for a mirror job, all of it dirty. Trackers of mirrors that died give way;
    // throws JobError when another mirror of this export runs.
    [[nodiscard]] Tracker start_tracker(const std::string& job, std::uint32_t granularity_bytes);
    // Whether it stands still, from an earlier connection or process. Throws JobError when somebody
    // else reads it.
    [[nodiscard]] bool take_up_tracker(const Tracker& tracker);
    // Call once a connection has selected the tracker's map, from when on no other mirror can
    // begin. Throws JobError when one has begun before that, or TrackerGone.
    void check_stands(const Tracker& own);
    // Best effort: a server that is gone has no tracker either.
    void drop_tracker(const Tracker& tracker) noexcept;

    // What a generation leaves for a later one: blocks that were acknowledged since the last freeze
    // that left nothing, and written again.
    enum class Leave { nothing, rewritten };
    struct Frozen {
        std::uint64_t generation = 0;
        std::uint64_t dirty_bytes = 0;
        std::uint64_t left_bytes = 0;
    };
    // These throw TrackerGone when it is, or another one by now.
    [[nodiscard]] Frozen freeze(const Tracker& tracker, Leave leave = Leave::nothing);
    // What was written in `range` since joins this generation, but for what that leaves; returns
    // the bytes that are new in it.
    std::uint64_t refreeze(const Tracker& tracker, std::uint64_t generation, Range range);
    // Returns the bytes that have become dirty since the generation was frozen.
    std::uint64_t acknowledge(const Tracker& tracker, std::uint64_t generation);
    // Of what lies before this offset.
    void acknowledge_up_to(const Tracker& tracker, std::uint64_t generation,
                           std::uint64_t offset_bytes);

    // Slows the writers down, until `lease` has passed. 0: no more.
    void throttle(std::chrono::microseconds delay, std::chrono::milliseconds lease);

    // Returns the hold's id when no write is in flight; throws when that takes longer than the
    // lease.
    [[nodiscard]] std::string hold(std::chrono::milliseconds lease);
    // Not cancelled, as what follows.
    void renew(const std::string& hold, std::chrono::milliseconds lease);
    // "serving", "held" or "retired".
    [[nodiscard]] std::string state();
    // Both return the longest time a write has waited, in milliseconds, and are not cancelled: they
    // decide who owns the disk.
    double release(const std::string& hold);
    double retire(const std::string& hold, const std::string& moved_to, const std::string& job);
    struct Retirement {
        std::string export_name;
        std::string hold;
        std::string moved_to;
    };
    // Several exports of this server, all or none.
    double retire_together(const std::vector<Retirement>& disks, const std::string& job);

  private:
    void check_no_other_mirror();
    nlohmann::json ask_tracker(const Tracker& tracker, const std::string& action,
                               nlohmann::json body);
    nlohmann::json ask(const std::string& method, const std::string& path,
                       const nlohmann::json& body, std::chrono::milliseconds limit,
                       bool may_cancel = true);

    // The same for any path of the server.
    nlohmann::json ask_at(const std::string& method, const std::string& path,
                          const nlohmann::json& body, std::chrono::milliseconds limit,
                          bool may_cancel = true);
    const Location location_;
    const Cancellation& cancellation_;
    const std::string base_;  // path of the export
    HttpClient http_;
};

}  // namespace nbdm
