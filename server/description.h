// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "server/server.h"

namespace nbdm {

// What the control socket tells of a server's parts, as JSON; the fields are in the man page.
//
// Threads: the main thread.
[[nodiscard]] nlohmann::json describe(Server& server, const Export& served);
[[nodiscard]] nlohmann::json describe_connections(const Server& server);
// Null: its writers are not slowed down.
[[nodiscard]] nlohmann::json describe_throttle(const Export& served);

}  // namespace nbdm
