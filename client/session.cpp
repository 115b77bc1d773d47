// SPDX-License-Identifier: Apache-2.0
#include "client/session.h"

#include <chrono>

namespace nbdm {

namespace {

// Higher than those of connections that began earlier.
std::string epoch() {
    const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::system_clock::now().time_since_epoch());
    return std::to_string(now.count());
}

}  // namespace

std::string session_context(const std::string& job) {
    return "nbd-mirror:session:" + job + ":" + epoch();
}

std::string commit_context(const std::string& job) {
    return "nbd-mirror:commit:" + job + ":" + epoch();
}

}  // namespace nbdm
