// SPDX-License-Identifier: Apache-2.0
#include "client/job_record.h"

#include <unistd.h>
#include <utility>

#include <nlohmann/json.hpp>

#include "control/durable_file.h"
#include "control/runtime_paths.h"

namespace nbdm {

using nlohmann::json;

JobRecord::JobRecord(const std::string& job) : path_(job_record_path(job)) {}

std::optional<std::vector<DiskRecord>> JobRecord::read() const {
    const std::optional<std::string> text = read_file(path_);
    if (!text) {
        return std::nullopt;
    }
    try {
        const json record = json::parse(*text);
        std::vector<DiskRecord> disks;
        for (const json& stored : record.at("disks")) {
            disks.push_back(
                {.source = stored.at("source"),
                 .target = stored.at("target"),
                 .size_bytes = stored.at("size_bytes"),
                 .tracker = {.name = stored.at("tracker"), .incarnation = stored.at("incarnation")},
                 .compare = stored.at("compare"),
                 .incoming = stored.at("incoming")});
        }
        if (disks.empty()) {
            throw JobError("the record '" + path_ + "' is damaged: it names no disk");
        }
        return disks;
    } catch (const json::exception& error) {
        throw JobError("the record '" + path_ + "' is damaged: " + error.what());
    }
}

void JobRecord::write(std::vector<DiskRecord> disks) {
    const std::lock_guard lock(mutex_);
    disks_ = std::move(disks);
    write_locked();
}

void JobRecord::replace(std::size_t index, const DiskRecord& disk) {
    const std::lock_guard lock(mutex_);
    disks_.at(index) = disk;
    write_locked();
}

void JobRecord::write_locked() const {
    json disks = json::array();
    for (const DiskRecord& disk : disks_) {
        disks.push_back({{"source", disk.source},
                         {"target", disk.target},
                         {"size_bytes", disk.size_bytes},
                         {"tracker", disk.tracker.name},
                         {"incarnation", disk.tracker.incarnation},
                         {"compare", disk.compare},
                         {"incoming", disk.incoming}});
    }
    write_file_durably(path_, json{{"disks", disks}}.dump(2) + "\n");
}

void JobRecord::remove() noexcept {
    const std::lock_guard lock(mutex_);
    disks_.clear();
    ::unlink(path_.c_str());
}

bool JobRecord::written() const {
    const std::lock_guard lock(mutex_);
    return !disks_.empty();
}

}  // namespace nbdm
