// SPDX-License-Identifier: Apache-2.0
#include "client/job_record.h"

#include <unistd.h>
#include <utility>

#include <nlohmann/json.hpp>

#include "control/durable_file.h"
#include "control/runtime_paths.h"

namespace nbdm {

using nlohmann::json;

JobRecord::JobRecord(const std::string& job) : name_(job), path_(job_record_path(job)) {}

std::optional<RecordedJob> JobRecord::read() const {
    const std::optional<std::string> text = read_file(path_);
    if (!text) {
        return std::nullopt;
    }
    try {
        const json record = json::parse(*text);
        RecordedJob job{
            .session = Session(record.value("session", name_), record.value("epoch", 0ULL)),
            .disks = {}};
        for (const json& stored : record.at("disks")) {
            DiskRecord& disk = job.disks.emplace_back(DiskRecord{
                .source = stored.at("source"),
                .target = stored.at("target"),
                .size_bytes = stored.at("size_bytes"),
                .tracker = {.name = stored.at("tracker"), .incarnation = stored.at("incarnation")},
                .compare = stored.at("compare"),
                .incoming = stored.at("incoming")});
            if (stored.contains("content")) {
                disk.content = {.disk = stored.at("content").at("disk"),
                                .fillers = stored.at("content").at("fillers")};
                disk.overwritten = stored.at("content").value("overwritten", false);
            }
        }
        if (job.disks.empty()) {
            throw JobError("the record '" + path_ + "' is damaged: it names no disk");
        }
        return job;
    } catch (const json::exception& error) {
        throw JobError("the record '" + path_ + "' is damaged: " + error.what());
    }
}

void JobRecord::take_up(RecordedJob job) {
    const std::lock_guard lock(mutex_);
    job_ = std::move(job);
}

void JobRecord::write(RecordedJob job) {
    const std::lock_guard lock(mutex_);
    write_locked(std::move(job));
}

void JobRecord::replace(std::size_t index, const DiskRecord& disk) {
    const std::lock_guard lock(mutex_);
    RecordedJob job = job_.value();
    job.disks.at(index) = disk;
    write_locked(std::move(job));
}

void JobRecord::replace(const Session& session) {
    const std::lock_guard lock(mutex_);
    RecordedJob job = job_.value();
    job.session = session;
    write_locked(std::move(job));
}

// Only what could be written stands.
void JobRecord::write_locked(RecordedJob job) {
    json disks = json::array();
    for (const DiskRecord& disk : job.disks) {
        json& stored = disks.emplace_back(json{{"source", disk.source},
                                               {"target", disk.target},
                                               {"size_bytes", disk.size_bytes},
                                               {"tracker", disk.tracker.name},
                                               {"incarnation", disk.tracker.incarnation},
                                               {"compare", disk.compare},
                                               {"incoming", disk.incoming}});
        if (disk.content) {
            stored["content"] = {{"disk", disk.content->disk},
                                 {"fillers", disk.content->fillers},
                                 {"overwritten", disk.overwritten}};
        }
    }
    write_file_durably(
        path_,
        json{{"session", job.session.id()}, {"epoch", job.session.epoch()}, {"disks", disks}}.dump(
            2) +
            "\n");
    job_ = std::move(job);
}

void JobRecord::remove() noexcept {
    const std::lock_guard lock(mutex_);
    if (job_) {
        job_.reset();
        ::unlink(path_.c_str());
    }
}

bool JobRecord::stands() const {
    const std::lock_guard lock(mutex_);
    return job_.has_value();
}

}  // namespace nbdm
