// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <sys/types.h>

namespace nbdm {

// Where the programs meet. Both are read from the environment at each call; of a list that systemd
// gives (a:b), the first counts. Threads: any, as long as none changes the environment.
//
// $NBD_MIRROR_RUNTIME_DIR, else $RUNTIME_DIRECTORY, else /run/nbd-mirror.
[[nodiscard]] std::string runtime_directory();
// `option` when not empty, else $NBD_MIRROR_STATE_DIR, else $STATE_DIRECTORY, else
// /var/lib/nbd-mirror.
[[nodiscard]] std::string state_directory(const std::string& option = {});

[[nodiscard]] std::string default_server_socket();
[[nodiscard]] std::string jobs_runtime_directory();
[[nodiscard]] std::string job_socket(const std::string& job);
// Where the last states of jobs are kept, and what they need to be resumed.
[[nodiscard]] std::string jobs_state_directory();
[[nodiscard]] std::string job_state_path(const std::string& job);
[[nodiscard]] std::string job_record_path(const std::string& job);

// Makes the directory and its parents where missing. Throws std::system_error with the
// path.
void ensure_directory(const std::string& path, mode_t mode);

}  // namespace nbdm
