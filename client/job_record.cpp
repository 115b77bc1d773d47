// SPDX-License-Identifier: Apache-2.0
#include "client/job_record.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "control/durable_file.h"
#include "control/runtime_paths.h"

namespace nbdm {

using nlohmann::json;

JobRecordFile::JobRecordFile(const std::string& job) : path_(job_record_path(job)) {}

void JobRecordFile::write(const JobRecord& record) const {
    const json text = {{"source", record.source},
                       {"target", record.target},
                       {"size_bytes", record.size_bytes},
                       {"tracker", record.tracker.name},
                       {"incarnation", record.tracker.incarnation},
                       {"compare", record.compare}};
    write_file_durably(path_, text.dump(2) + "\n");
}

std::optional<JobRecord> JobRecordFile::read() const {
    const std::optional<std::string> text = read_file(path_);
    if (!text) {
        return std::nullopt;
    }
    try {
        const json stored = json::parse(*text);
        return JobRecord{
            .source = stored.at("source"),
            .target = stored.at("target"),
            .size_bytes = stored.at("size_bytes"),
            .tracker = {.name = stored.at("tracker"), .incarnation = stored.at("incarnation")},
            .compare = stored.at("compare")};
    } catch (const json::exception& error) {
        throw JobError("the record '" + path_ + "' is damaged: " + error.what());
    }
}

void JobRecordFile::remove() const noexcept {
    ::unlink(path_.c_str());
}

}  // namespace nbdm
