// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nbdm {

// The commands that talk to jobs run by other processes. Each prints its answer to standard
// output and returns the exit status; throws JobError with a sentence.
//
// Threads: one at a time.

// `job` empty: all jobs, running and ended.
int show_status(const std::string& job, bool json);
// Returns when the disk was handed over, or the cutover was given up.
int cut_over_job(const std::string& job);
// Asks; the job ends by itself, soon.
int cancel_job(const std::string& job);

}  // namespace nbdm
