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

std::runtime_error damaged(const std::string& path, const json::exception& error) {
    return std::runtime_error("the record '" + path +
                              "' is damaged, so that nobody can say which disks it is about; "
                              "remove it when they are not to be served here (" +
                              error.what() + ")");
}

json describe(const Export& served) {
    const DiskIdentity disk = DiskIdentity::of(served.file());
    return {{"export", served.name()},
            {"path", disk.path},
            {"storage", disk.storage},
            {"born_at_ns", disk.born_at_ns}};
}

DiskIdentity identity_in(const json& stored) {
    return {.path = stored.at("path"),
            .storage = stored.at("storage"),
            .born_at_ns = stored.at("born_at_ns")};
}

// Paths, none when there is no such directory.
std::vector<std::string> records_in(const std::string& directory) {
    std::vector<std::string> paths;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        if (entry.path().extension() == ".json") {
            paths.push_back(entry.path());
        }
    }
    if (error && error != std::errc::no_such_file_or_directory) {
        throw std::runtime_error("cannot look for records of moved disks in '" + directory +
                                 "': " + error.message() + "; " + kHint);
    }
    return paths;
}

// Records are found by what is in them; the name is for people, and of no other record.
template <typename Make>
std::string write_new_record(const std::string& directory, Make make) {
    ensure_directory(directory, 0700);
    const auto now = std::chrono::system_clock::now();
    const auto fraction = now.time_since_epoch() % std::chrono::seconds(1);
    const std::string path = directory + "/" + utc_text(now, "%Y%m%dT%H%M%S.") +
                             std::to_string(fraction.count()) + ".json";
    try {
        write_file_durably(path, make(utc_text(now)).dump(2) + "\n");
    } catch (const std::system_error&) {
        ::unlink(path.c_str());  // it may stand already, and only its directory not be synced
        throw;
    }
    return path;
}

// Calls `call(index, record)` for each disk that has moved by this record and was not taken back.
template <typename Call>
void for_each_move(const std::string& path, Call call) {
    const std::optional<std::string> text = read_file(path);
    if (!text) {
        return;  // another server of this directory has removed it
    }
    const json stored = json::parse(*text, nullptr, false);
    try {
        std::size_t index = 0;
        for (const json& disk : stored.at("disks")) {
            if (!disk.contains(kTakenBack)) {
                call(index, MoveRecord{.disk = identity_in(disk),
                                       .export_name = disk.at("export"),
                                       .moved_to = disk.at("moved_to"),
                                       .job = stored.at("job"),
                                       .moved_at = stored.at("moved_at")});
            }
            ++index;
        }
    } catch (const json::exception& error) {
        throw damaged(path, error);
    }
}

}  // namespace

std::string moved_sentence(const Export& served, const std::optional<MoveRecord>& moved) {
    std::string sentence =
        "export '" + served.name() + "' ('" + served.file().path() + "') has moved away";
    if (!moved) {
        return sentence;
    }
    return sentence + ", to " + (moved->moved_to.empty() ? "an unnamed place" : moved->moved_to) +
           ", at " + moved->moved_at + (moved->job.empty() ? "" : " (job '" + moved->job + "')");
}

void OwnershipRecords::check_writable() const {
    with_hint(kHint, [&] {
        ensure_directory(directory_, 0700);
        check_errno(::access(directory_.c_str(), W_OK), "cannot write to '" + directory_ + "'");
    });
}

void OwnershipRecords::record_moves(const std::vector<Move>& moves, const std::string& job) const {
    const std::lock_guard lock(mutex_);
    json disks = json::array();
    std::vector<std::string> arrivals;
    for (const Move& move : moves) {
        json disk = describe(move.moved);
        disk["moved_to"] = move.moved_to;
        disks.push_back(disk);
        // All that can fail comes before the record, with which the disks have moved.
        for (const auto& [path, record] : arrivals_of(DiskIdentity::of(move.moved.file()))) {
            arrivals.push_back(path);
        }
    }
    (void)write_new_record(directory_, [&](const std::string& now) {
        return json{{"job", job}, {"moved_at", now}, {"disks", disks}};
    });
    // It has not arrived any more, which the record above says already.
    for (const std::string& path : arrivals) {
        ::unlink(path.c_str());
    }
}

void OwnershipRecords::record_arrival(const Export& arrived, const std::string& job) const {
    const std::lock_guard lock(mutex_);
    const std::string path = write_new_record(arrivals_, [&](const std::string& now) {
        json record = describe(arrived);
        record["job"] = job;
        record["arrived_at"] = now;
        return record;
    });
    try {
        take_back_locked(arrived.file());
    } catch (const std::exception&) {
        ::unlink(path.c_str());  // it has not arrived
        throw;
    }
}

std::optional<ArrivalRecord> OwnershipRecords::find_arrival(const DiskFile& file) const {
    const std::lock_guard lock(mutex_);
    const auto found = arrivals_of(DiskIdentity::of(file));
    return found.empty() ? std::nullopt : std::optional(found.front().second);
}

std::vector<std::pair<std::string, ArrivalRecord>> OwnershipRecords::arrivals_of(
    const DiskIdentity& disk) const {
    std::vector<std::pair<std::string, ArrivalRecord>> found;
    for (const std::string& path : records_in(arrivals_)) {
        const std::optional<std::string> text = read_file(path);
        if (!text) {
            continue;  // another server of this directory has removed it
        }
        const json stored = json::parse(*text, nullptr, false);
        try {
            if (identity_in(stored).is_same_as(disk)) {
                found.emplace_back(path, ArrivalRecord{.job = stored.at("job"),
                                                       .arrived_at = stored.at("arrived_at")});
            }
        } catch (const json::exception& error) {
            throw damaged(path, error);
        }
    }
    return found;
}

std::vector<OwnershipRecords::Stored> OwnershipRecords::records_of(const DiskFile& file) const {
    std::vector<Stored> found;
    const DiskIdentity disk = DiskIdentity::of(file);
    for (const std::string& path : records_in(directory_)) {
        for_each_move(path, [&](std::size_t index, MoveRecord record) {
            if (record.disk.is_same_as(disk)) {
                found.push_back({path, index, std::move(record)});
            }
        });
    }
    return found;
}

std::optional<MoveRecord> OwnershipRecords::find(const DiskFile& file) const {
    const std::lock_guard lock(mutex_);
    const std::vector<Stored> found = records_of(file);
    return found.empty() ? std::nullopt : std::optional(found.front().record);
}

void OwnershipRecords::take_back(const DiskFile& file) const {
    const std::lock_guard lock(mutex_);
    take_back_locked(file);
}

void OwnershipRecords::take_back_locked(const DiskFile& file) const {
    for (const Stored& stored : records_of(file)) {
        json record = json::parse(read_file(stored.path).value_or(""));
        record.at("disks").at(stored.index)[kTakenBack] =
            utc_text(std::chrono::system_clock::now());
        write_file_durably(stored.path, record.dump(2) + "\n");
    }
}

}  // namespace nbdm
