// SPDX-License-Identifier: Apache-2.0
#include "client/watch/watched_jobs.h"

#include <algorithm>

#include "client/cancellation.h"
#include "client/known_jobs.h"

namespace nbdm {

namespace {

// Jobs that were started since are looked for this often.
constexpr std::chrono::seconds kSearchInterval{1};

}  // namespace

WatchedJobs::WatchedJobs(const std::string& job) : all_(job.empty()) {
    if (!all_) {
        jobs_.emplace_back(job);
    }
}

void WatchedJobs::look(const std::function<bool()>& interrupted) {
    const WatchedJob::Clock::time_point now = WatchedJob::Clock::now();
    if (all_ && now - searched_ >= kSearchInterval) {
        searched_ = now;
        search();
    }
    for (WatchedJob& job : jobs_) {
        job.look(now, interrupted);
    }
    if (interrupted && interrupted()) {
        return;
    }
    if (!all_ && jobs_.front().is_unknown() && !job_runs(jobs_.front().name())) {
        throw JobError("there is no job '" + jobs_.front().name() + "'");
    }
    // One that ended before it said anything.
    jobs_.remove_if([this](const WatchedJob& job) {
        return all_ && job.is_unknown() && !job_runs(job.name());
    });
    if (jobs_.empty()) {
        throw JobError("no job is running");
    }
}

void WatchedJobs::search() {
    for (const std::string& name : known_jobs()) {
        const auto known = std::find_if(jobs_.begin(), jobs_.end(),
                                        [&](const WatchedJob& job) { return job.name() == name; });
        if ((known != jobs_.end() && !known->is_over()) || !job_runs(name)) {
            continue;
        }
        if (known != jobs_.end()) {  // it is resumed
            jobs_.erase(known);
        }
        jobs_.emplace_back(name);
    }
}

bool WatchedJobs::all_are_over() const {
    return std::all_of(jobs_.begin(), jobs_.end(),
                       [](const WatchedJob& job) { return job.is_over(); });
}

}  // namespace nbdm
