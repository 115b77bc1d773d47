// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <list>
#include <string>
#include <vector>

#include "client/watch/job_page.h"
#include "client/watch/watched_job.h"

namespace nbdm {

// What is watched, on one page: a list, where there are several, and below it as much of one job as
// there is room for. `chosen` counts in the list.
//
// Threads: any.
[[nodiscard]] std::vector<std::string> draw_jobs_page(const std::list<WatchedJob>& jobs,
                                                      std::size_t chosen, const PageFormat& format);

}  // namespace nbdm
