// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/cancellation.h"
#include "client/location.h"
#include "control/http_client.h"

namespace nbdm {

// The server did not answer: whether it did what it was asked is not known.
class NoAnswer : public JobError {
  public:
    using JobError::JobError;
};

// The nbd-mirror-server under the source disk, by its control socket: one export of it.
//
// Threads: one at a time. Fails: JobError with a sentence (NoAnswer when there was none);
//          Cancelled.
class SourceServer {
  public:
    SourceServer(const Location& location, const Cancellation& cancellation);

    struct About {
        std::string path;
        Location address;  // to read it, a Unix socket where there is one; shown as it was named
        std::string state;
        bool read_only = false;
        std::uint64_t size_bytes = 0;
        std::uint64_t dirty_bytes = 0;  // of the tracker that was named, frozen ones included
        std::vector<std::string> uris;
    };
    // Throws JobError also when nobody can connect to the export.
    [[nodiscard]] About about(const std::string& tracker);

    // Starts a tracker afresh: one of this name, left by a mirror that died, is dropped.
    void start_tracker(const std::string& name, std::uint32_t granularity_bytes);
    // Best effort: a server that is gone has no tracker either.
    void drop_tracker(const std::string& name) noexcept;

    struct Frozen {
        std::uint64_t generation = 0;
        std::uint64_t dirty_bytes = 0;
    };
    [[nodiscard]] Frozen freeze(const std::string& tracker);
    void acknowledge(const std::string& tracker, std::uint64_t generation);

    // Returns the hold's id when no write is in flight.
    [[nodiscard]] std::string hold(std::chrono::milliseconds lease);
    void renew(const std::string& hold, std::chrono::milliseconds lease);
    // "serving", "held" or "retired". Not cancelled, as what follows.
    [[nodiscard]] std::string state();
    // Both return the longest time a write has waited, in milliseconds, and are not cancelled: they
    // decide who owns the disk.
    double release(const std::string& hold);
    double retire(const std::string& hold, const std::string& moved_to, const std::string& job);

  private:
    nlohmann::json ask(const std::string& method, const std::string& path,
                       const nlohmann::json& body, std::chrono::milliseconds limit,
                       bool may_cancel = true);

    const Location location_;
    const Cancellation& cancellation_;
    const std::string base_;  // path of the export
    HttpClient http_;
};

}  // namespace nbdm
