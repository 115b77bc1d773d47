// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nbdm {

// The metadata context of a job's connections to a target, of the epoch that begins now: what
// earlier connections of a mirror of this name have sent to an nbd-mirror-server does not land any
// more once later ones stand.
[[nodiscard]] std::string session_context(const std::string& job);
// The one by which the target is told that the source has handed over.
//
// Threads: any, both.
[[nodiscard]] std::string commit_context(const std::string& job);

}  // namespace nbdm
