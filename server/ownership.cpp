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

constexpr const char* kTakenBack = "taken_back_at";

// Calls `call(index, record)` for each disk that has moved by this record and was not taken back.
template <typename Call>
void for_each_move(const std::string& path, Call call) {
    const json stored = json::parse(read_file(path).value_or(""), nullptr, false);
    try {
        std::size_t index = 0;
        for (const json& disk : stored.at("disks")) {
            if (!disk.contains(kTakenBack)) {
                call(index, MoveRecord{.disk = {.path = disk.at("path"),
                                                .storage = disk.at("storage"),
                                                .born_at_ns = disk.at("born_at_ns")},
                                       .export_name = disk.at("export"),
                                       .moved_to = disk.at("moved_to"),
                                       .job = stored.at("job"),
                                       .moved_at = stored.at("moved_at")});
            }
            ++index;
        }
    } catch (const json::exception& error) {
        throw std::runtime_error("the record of moved disks '" + path +
                                 "' is damaged, so that nobody can say which disks it is about; "
                                 "remove it when they are not to be served here (" +
                                 error.what() + ")");
    }
}

}  // namespace

void OwnershipRecords::check_writable() const {
    with_hint(kHint, [&] {
        ensure_directory(directory_, 0700);
        check_errno(::access(directory_.c_str(), W_OK), "cannot write to '" + directory_ + "'");
    });
}

void OwnershipRecords::record_moves(const std::vector<Move>& moves, const std::string& job) const {
    ensure_directory(directory_, 0700);
    json disks = json::array();
    for (const Move& move : moves) {
        const DiskIdentity disk = DiskIdentity::of(move.moved.file());
        disks.push_back({{"export", move.moved.name()},
                         {"path", disk.path},
                         {"storage", disk.storage},
                         {"born_at_ns", disk.born_at_ns},
                         {"moved_to", move.moved_to}});
    }
    const auto now = std::chrono::system_clock::now();
    const json record = {{"job", job}, {"moved_at", utc_text(now)}, {"disks", disks}};
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
            for_each_move(entry.path(), [&](std::size_t index, MoveRecord record) {
                if (record.disk.is_same_as(disk)) {
                    found.push_back({entry.path(), index, std::move(record)});
                }
            });
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
        json record = json::parse(read_file(stored.path).value_or(""));
        record.at("disks").at(stored.index)[kTakenBack] =
            utc_text(std::chrono::system_clock::now());
        write_file_durably(stored.path, record.dump(2) + "\n");
    }
}

}  // namespace nbdm
