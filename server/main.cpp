// SPDX-License-Identifier: Apache-2.0
// nbd-mirror-server: serves disks over NBD so that they can be moved while they are written.
#include <array>
#include <csignal>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>

#include <event2/event.h>

#include "control/event.h"
#include "control/http_server.h"
#include "control/log.h"
#include "control/runtime_paths.h"
#include "iothread/check.h"
#include "server/control_api.h"
#include "server/options.h"
#include "server/server.h"
#include "server/systemd.h"

namespace {

using namespace nbdm;

constexpr const char* kControlHint =
    "--control or NBD_MIRROR_RUNTIME_DIR names another place for the control socket";

void serve(CommandLine options) {
    std::signal(SIGPIPE, SIG_IGN);
    set_log_level(options.log_level);
    const LogThread log_thread;
    const EventBasePointer base(event_base_new());
    const std::string control_path = options.server.control_path;
    if (control_path == default_server_socket()) {
        with_hint(kControlHint, [] { ensure_directory(runtime_directory(), 0755); });
    }
    std::vector<UniqueFd> inherited = inherited_sockets();
    if (options.server.listen.empty() && inherited.empty()) {
        options.server.listen.push_back(ListenAddress::parse("tcp:localhost:10809"));
    }
    Server server(base.get(), std::move(options.server), std::move(inherited));
    SystemdNotifier notifier(base.get(), [&] { return server.status(); });
    std::function<void()> stop = [&] {
        server.drain();
        notifier.stopping();
    };
    // Before anybody can know that it is there. Behind the loop they are ignored: it is ending.
    const std::array<int, 3> stops = {SIGTERM, SIGINT, SIGHUP};
    std::array<EventPointer, stops.size()> signals;
    for (std::size_t i = 0; i < stops.size(); ++i) {
        std::signal(stops[i], SIG_IGN);
        signals[i].reset(evsignal_new(
            base.get(), stops[i],
            [](evutil_socket_t, short, void* self) {
                (*static_cast<std::function<void()>*>(self))();
            },
            &stop));
        event_add(signals[i].get(), nullptr);
    }
    ControlApi api(server);
    HttpServer control = with_hint(kControlHint, [&] {
        return HttpServer(base.get(), control_path,
                          [&](HttpRequest request) { api.handle(std::move(request)); });
    });
    server.take_ownership();
    server.restore_trackers();
    server.announce();
    notifier.ready();
    event_base_dispatch(base.get());
    control.flush();
    server.keep_trackers();
}

}  // namespace

int main(int argc, char** argv) {
    try {
        std::optional<nbdm::CommandLine> options = nbdm::parse_command_line(argc, argv);
        if (options) {
            serve(std::move(*options));
        }
        return 0;
    } catch (const std::invalid_argument& error) {
        std::cerr << "nbd-mirror-server: " << error.what() << '\n';
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "nbd-mirror-server: " << error.what() << '\n';
        return 1;
    }
}
