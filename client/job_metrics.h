// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "client/job_status.h"

namespace nbdm {

// A job in Prometheus's text format. What is not known has no sample.
//
// Threads: any.
[[nodiscard]] std::string job_metrics(const JobSnapshot& snapshot);

}  // namespace nbdm
