// SPDX-License-Identifier: Apache-2.0
#include "server/systemd.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include <sys/socket.h>

#include <systemd/sd-daemon.h>

namespace nbdm {

namespace {

// How old the status may be.
constexpr std::uint64_t kMaxTickUs = 5'000'000;

}  // namespace

std::vector<UniqueFd> inherited_sockets() {
    constexpr int kUnsetEnvironment = 1;
    const int count = sd_listen_fds(kUnsetEnvironment);
    std::vector<UniqueFd> result;
    for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + count; ++fd) {
        result.emplace_back(fd);
        constexpr int kListening = 1;
        if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, kListening) <= 0) {
            throw std::runtime_error("descriptor " + std::to_string(fd) +
                                     ", passed by the service manager, is no listening stream "
                                     "socket (ListenStream= is wanted, Accept=no)");
        }
    }
    return result;
}

SystemdNotifier::SystemdNotifier(event_base* base, std::function<std::string()> status)
    : status_(std::move(status)) {
    if (std::getenv("NOTIFY_SOCKET") == nullptr) {  // NOLINT(concurrency-mt-unsafe)
        return;
    }
    std::uint64_t watchdog_us = 0;
    has_watchdog_ = sd_watchdog_enabled(0, &watchdog_us) > 0;
    // Twice in each of the watchdog's intervals, as sd_watchdog_enabled(3) advises.
    const std::uint64_t tick_us =
        has_watchdog_ ? std::min(watchdog_us / 2, kMaxTickUs) : kMaxTickUs;
    timer_.reset(event_new(
        base, -1, EV_PERSIST,
        [](evutil_socket_t, short, void* self) { static_cast<SystemdNotifier*>(self)->tick(); },
        this));
    constexpr std::uint64_t kSecondUs = 1'000'000;
    const timeval interval{static_cast<time_t>(tick_us / kSecondUs),
                           static_cast<suseconds_t>(tick_us % kSecondUs)};
    event_add(timer_.get(), &interval);
}

void SystemdNotifier::ready() {
    sd_notify(0, "READY=1");
    tick();
}

void SystemdNotifier::stopping() {
    sd_notify(0, "STOPPING=1");
    tick();
}

void SystemdNotifier::tick() {
    if (has_watchdog_) {
        sd_notify(0, "WATCHDOG=1");
    }
    if (std::string now = status_(); now != told_) {
        told_ = std::move(now);
        sd_notify(0, ("STATUS=" + told_).c_str());
    }
}

}  // namespace nbdm
