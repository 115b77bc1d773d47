// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "client/options.h"

namespace nbdm {

// The commands that talk to jobs run by other processes. Each prints its answer to standard
// output and returns the exit status; throws JobError with a sentence.
//
// Threads: one at a time.

// `job` empty: all jobs, running and ended.
int show_status(const std::string& job, bool json);
// A cutover is answered when the disk was handed over or it was given up; the others at once: a job
// that is cancelled ends by itself, soon.
int tell_job(const JobCommand& command);
int set_limits(const SetCommand& command);

}  // namespace nbdm
