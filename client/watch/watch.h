// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nbdm {

// Shows a job, or all running ones when `job` is empty, until they have ended or somebody leaves:
// on a terminal as a page that is drawn some times a second; otherwise, or as JSON, a line for each
// job a second. Returns the exit status.
//
// Threads: the program's only one. Fails: JobError when there is nothing to watch. Ends by the
//          signal that ends it, with the terminal as it was.
int watch_jobs(const std::string& job, bool json);

}  // namespace nbdm
