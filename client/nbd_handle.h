// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <libnbd.h>

#include "client/cancellation.h"
#include "client/endpoint.h"
#include "iothread/range.h"

namespace nbdm {

// The metadata context of an export that waits for a mirror.
constexpr const char* kIncomingContext = "nbd-mirror:incoming";
// The metadata context by which an nbd-mirror-server tells our reads from those of its clients.
constexpr const char* kBackgroundContext = "nbd-mirror:background";

// One libnbd handle, connected. libnbd's own calls are made through get().
//
// Threads: one at a time.
class NbdHandle {
  public:
    // Connects and negotiates. Throws ConnectionLost that names the URI (also when nothing that
    // speaks NBD answers in time), Cancelled, or JobError.
    NbdHandle(std::string uri, const std::vector<std::string>& meta_contexts,
              const Cancellation& cancellation);
    NbdHandle(const NbdHandle&) = delete;
    NbdHandle& operator=(const NbdHandle&) = delete;
    ~NbdHandle();  // says goodbye without waiting for an answer

    [[nodiscard]] nbd_handle* get() const noexcept { return handle_; }
    [[nodiscard]] const std::string& uri() const noexcept { return uri_; }
    // What the server said of the export. Throws JobError.
    [[nodiscard]] EndpointTraits traits() const;

    // Its own end of a TCP connection as the server sees it, "HOST:PORT"; empty for others.
    [[nodiscard]] std::string local_address() const;

    // Runs the connection until `done` says so. Throws ConnectionLost, also when `limit` has
    // passed, or Cancelled.
    void run_until(const std::function<bool()>& done, std::chrono::milliseconds limit,
                   const Cancellation& cancellation);

    // Ends the connection at once: every command under way fails, soon.
    void abandon() noexcept;

    // The text of libnbd's last error on this thread, without its function's name.
    [[nodiscard]] static std::string last_error();

  private:
    const std::string uri_;
    nbd_handle* handle_ = nullptr;
};

}  // namespace nbdm
