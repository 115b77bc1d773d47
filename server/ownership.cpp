// SPDX-License-Identifier: Apache-2.0
#include "server/ownership.h"

#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "control/durable_file.h"
#include "control/runtime_paths.h"
#include "control/utc.h"
#include "iothread/check.h"

namespace nbdm {

namespace {

using nlohmann::json;

constexpr const char* kHint =
    "--state-dir or NBD_MIRROR_STATE_DIR names another directory of records";

MoveRecord read_record(const std::string& path) {
    const json stored = json::parse(read_file(path).value_or(""), nullptr, false);
    MoveRecord record;
    try {
        record.disk.path = stored.at("path");
        record.disk.storage = stored.at("storage");
        record.disk.born_at_ns = stored.at("born_at_ns");
        record.export_name = stored.at("export");
        record.moved_to = stored.at("moved_to");
        record.job = stored.at("job");
        record.moved_at = stored.at("moved_at");
    } catch (const json::exception& error) {
        throw std::runtime_error("the record of a moved disk '" + path +
                                 "' is damaged, so that nobody can say which disk it is about; "
                                 "remove it when its disk is not to be served here (" +
                                 error.what() + ")");
    }
    return record;
}

}  // namespace

void OwnershipRecords::check_writable() const {
    with_hint(kHint, [&] {
        ensure_directory(directory_, 0700);
        check_errno(::access(directory_.c_str(), W_OK), "cannot write to '" + directory_ + "'");
    });
}

void OwnershipRecords::record_move(const Export& moved, const std::string& moved_to,
                                   const std::string& job) const {
    ensure_directory(directory_, 0700);
    const DiskIdentity disk = DiskIdentity::of(moved.file());
    const auto now = std::chrono::system_clock::now();
    const json record = {{"export", moved.name()},   {"path", disk.path},
                         {"storage", disk.storage},  {"born_at_ns", disk.born_at_ns},
                         {"moved_to", moved_to},     {"job", job},
                         {"moved_at", utc_text(now)}};
    // Found by what is in it; the name is for people, and of no other record.
    const auto fraction = now.time_since_epoch() % std::chrono::seconds(1);
    const std::string path = directory_ + "/" + utc_text(now, "%Y%m%dT%H%M%S.") +
                             std::to_string(fraction.count()) + ".json";
    try {
        write_file_durably(path, record.dump(2) + "\n");
    } catch (const std::system_error&) {
        ::unlink(path.c_str());  // it may stand already, and only its directory not be synced
        throw;
    }
}

std::vector<OwnershipRecords::Stored> OwnershipRecords::records_of(const DiskFile& file) const {
    std::vector<Stored> found;
    std::error_code error;
    const DiskIdentity disk = DiskIdentity::of(file);
    for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
        if (entry.path().extension() == ".json") {
            MoveRecord record = read_record(entry.path());
            if (record.disk.is_same_as(disk)) {
                found.push_back({entry.path(), std::move(record)});
            }
        }
    }
    if (error && error != std::errc::no_such_file_or_directory) {
        throw std::runtime_error("cannot look for records of moved disks in '" + directory_ +
                                 "': " + error.message() + "; " + kHint);
    }
    return found;
}

std::optional<MoveRecord> OwnershipRecords::find(const DiskFile& file) const {
    const std::vector<Stored> found = records_of(file);
    return found.empty() ? std::nullopt : std::optional(found.front().record);
}

void OwnershipRecords::take_back(const DiskFile& file) const {
    for (const Stored& stored : records_of(file)) {
        rename_durably(stored.path, stored.path + ".taken-back");
    }
}

}  // namespace nbdm
