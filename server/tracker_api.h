// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "control/http_server.h"
#include "server/export.h"

namespace nbdm {

// Answers a request about one of an export's trackers: /v1/exports/NAME/trackers/T and below.
//
// Threads: the main thread.
void handle_tracker(HttpRequest request, Export& served);

}  // namespace nbdm
