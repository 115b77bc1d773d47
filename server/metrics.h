// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nbdm {

class Server;

// What GET /metrics answers: the server in Prometheus's words. Threads: the main thread.
[[nodiscard]] std::string metrics_text(Server& server);

}  // namespace nbdm
