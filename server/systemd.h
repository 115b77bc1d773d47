// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <event2/event.h>

#include "control/event.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// The listening sockets that systemd has opened for this process (systemd.socket(5)), each given
// out once. Throws std::runtime_error when one of them is no listening stream socket.
[[nodiscard]] std::vector<UniqueFd> inherited_sockets();

// What systemd is told (sd_notify(3)): readiness, a line of status, the end, and, where the unit
// has a watchdog, that the loop still turns. Without systemd it does nothing.
//
// Threads: the main thread.
class SystemdNotifier {
  public:
    // `status` is asked for a short sentence now and then.
    SystemdNotifier(event_base* base, std::function<std::string()> status);
    SystemdNotifier(const SystemdNotifier&) = delete;
    SystemdNotifier& operator=(const SystemdNotifier&) = delete;
    ~SystemdNotifier() = default;

    void ready();
    void stopping();

  private:
    void tick();

    const std::function<std::string()> status_;
    std::string told_;
    bool has_watchdog_ = false;
    EventPointer timer_;
};

}  // namespace nbdm
