// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "control/http_server.h"
#include "server/server.h"

namespace nbdm {

// The server's control socket: what GET, PUT, POST and DELETE of /v1/... and /metrics do.
//
// Threads: the main thread, inside the event loop. `server` outlives this.
class ControlApi {
  public:
    explicit ControlApi(Server& server) : server_(server) {}

    void handle(HttpRequest request);

  private:
    // Of a path that begins with /v1/exports/NAME.
    void handle_export(HttpRequest request);
    void show_metrics(HttpRequest request);
    void show_connections(HttpRequest request);
    void show_exports(HttpRequest request);
    void retire_together(HttpRequest request);
    void show_export(HttpRequest request, Export& served);
    void hold(HttpRequest request, Export& served);
    void refuse_hold(HttpRequest& request, const Export& served, const std::string& id);
    void release(HttpRequest request, Export& served);
    void retire(HttpRequest request, Export& served);
    // `describe_moved` makes the answer when the disks have moved.
    void hand_over(HttpRequest request, std::vector<HandOvers::Disk> disks, const std::string& job,
                   std::function<nlohmann::json(const std::vector<HoldTimes>&)> describe_moved);
    void throttle(HttpRequest request, Export& served);
    void resize(HttpRequest request, Export& served);

    Server& server_;
};

}  // namespace nbdm
