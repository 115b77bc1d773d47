// SPDX-License-Identifier: Apache-2.0
#include "server/ownership.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <fcntl.h>
#include <filesystem>
#include <mutex>
#include <poll.h>
#include <stdexcept>
#include <unistd.h>

#include <sys/file.h>

#include <nlohmann/json.hpp>

#include "control/durable_file.h"
#include "control/log.h"
#include "control/runtime_paths.h"
#include "control/utc.h"
#include "iothread/check.h"

namespace nbdm {

namespace {

using nlohmann::json;

constexpr const char* kHint =
    "--state-dir or NBD_MIRROR_STATE_DIR names another directory of records";
constexpr const char* kNoWayOut =
    "another state directory is no way out: what is recorded in this one would not be known, and "
    "disks that have moved away would be served for writing";

constexpr const char* kTakenBack = "taken_back_at";

std::runtime_error damaged(const std::string& path, const json::exception& error) {
    return std::runtime_error("the record '" + path +
                              "' is damaged, so that nobody can say which disks it is about; "
                              "remove it when they are not to be served here (" +
                              error.what() + ")");
}

json describe(const std::string& export_name, const DiskIdentity& disk) {
    return {{"export", export_name},
            {"path", disk.path},
            {"storage", disk.storage},
            {"born_at_ns", disk.born_at_ns}};
}

DiskIdentity identity_of(const DiskFile& file) {
    return DiskIdentity::of(file.fd(), file.path());
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
        // Where that is a file there can be none.
        throw std::runtime_error("cannot look for records in '" + directory +
                                 "': " + error.message() + "; " +
                                 (error == std::errc::not_a_directory ? kHint : kNoWayOut));
    }
    return paths;
}

// Records are found by what is in them; the name is for people, sorts by time, and is of no other
// record.
std::string new_record(const std::string& directory, std::chrono::system_clock::time_point now) {
    static std::atomic<unsigned> count{0};
    const std::chrono::nanoseconds fraction = now.time_since_epoch() % std::chrono::seconds(1);
    const std::string digits = std::to_string(fraction.count());
    return directory + "/" + utc_text(now, "%Y%m%dT%H%M%S.") +
           std::string(9 - std::min<std::size_t>(digits.size(), 9), '0') + digits + "-" +
           std::to_string(::getpid()) + "-" + std::to_string(++count) + ".json";
}

// One thread of all processes changes records of this directory at a time, until it is closed.
// flock(2) knows no deadline, so it is asked again and again: a storage that stands still under
// another server must not keep a start, or a connection's thread, without a word.
UniqueFd lock_records(const std::string& directory) {
    using Clock = std::chrono::steady_clock;
    // Long against what a change takes where the storage is well; shorter than a negotiation may
    // take, in which a mirror waits for this.
    constexpr std::chrono::seconds kLimit{5};
    constexpr int kAskAgainMs = 20;
    const std::string path = directory + ".lock";
    const std::string what = "cannot lock '" + path + "'";
    UniqueFd opened(check_errno(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600), what));
    const Clock::time_point end = Clock::now() + kLimit;
    while (::flock(opened.get(), LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            throw errno_error(errno, what);
        }
        if (Clock::now() >= end) {
            throw std::runtime_error(what + ": other servers have kept it for " +
                                     std::to_string(kLimit.count()) +
                                     " s; does the storage of the records stand still?");
        }
        ::poll(nullptr, 0, kAskAgainMs);
    }
    return opened;
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

std::string moved_sentence(const Export& served, const MoveRecord& moved) {
    return served.quoted() + " ('" + served.file().path() + "') has moved away, to " +
           (moved.moved_to.empty() ? "an unnamed place" : moved.moved_to) + ", at " +
           moved.moved_at + (moved.job.empty() ? "" : " (job '" + moved.job + "')");
}

void OwnershipRecords::settle() const {
    for (const std::string& each : {directory_, arrivals_}) {
        if (::access(each.c_str(), F_OK) != 0) {
            continue;
        }
        with_hint(kNoWayOut, [&] {
            try {
                sync_directory_of(each + "/");
            } catch (const std::system_error& error) {
                // A file system that makes no directory durable has none of our records.
                const bool unknown_there = error.code() == std::errc::invalid_argument ||
                                           error.code() == std::errc::not_supported;
                if (!unknown_there || !records_in(each).empty()) {
                    throw;
                }
            }
        });
    }
}

void OwnershipRecords::prepare_for_moves() const {
    prepare(directory_);
    prepared_ = true;
    remove_leftovers(directory_);
    remove_leftovers(arrivals_);
}

void OwnershipRecords::prepare_for_arrivals() const {
    try {
        prepare(arrivals_);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(
            std::string("nothing can be incoming, since no landing could be recorded: ") +
            error.what());
    }
}

void OwnershipRecords::prepare(const std::string& directory) const {
    const bool has_records = !records_in(directory_).empty() || !records_in(arrivals_).empty();
    with_hint(has_records ? kNoWayOut : kHint, [&] {
        make_for_good(directory);
        const DurableFile room_for_a_record(directory + "/probe", "{}");  // and gone again
    });
}

void OwnershipRecords::make_for_good(const std::string& directory) const {
    ensure_directory(directory, 0700);
    sync_directory_of(directory);
    try {
        sync_directory_of(state_directory_);
    } catch (const std::system_error& error) {
        // Where another may not even look, it was made by whoever may.
        if (error.code() != std::errc::permission_denied) {
            throw;
        }
    }
}

OwnershipRecords::PreparedMoves OwnershipRecords::prepare_moves(const std::vector<Move>& moves,
                                                                const std::string& job) const {
    if (!prepared_) {
        prepare_for_moves();
    }
    const auto now = std::chrono::system_clock::now();
    PreparedMoves prepared;
    json disks = json::array();
    for (const Move& move : moves) {
        const DiskIdentity identity = move.moved.identity();
        json disk = describe(move.moved.name(), identity);
        disk["moved_to"] = move.moved_to;
        disks.push_back(disk);
        for (const ArrivalRecord& arrival : arrivals_of(identity)) {
            prepared.arrivals_.push_back(arrival.path);
        }
        prepared.moves_.push_back({.disk = identity,
                                   .export_name = move.moved.name(),
                                   .moved_to = move.moved_to,
                                   .job = job,
                                   .moved_at = utc_text(now)});
    }
    const json record{{"job", job}, {"moved_at", utc_text(now)}, {"disks", disks}};
    prepared.record_ =
        std::make_unique<DurableFile>(new_record(directory_, now), record.dump(2) + "\n");
    return prepared;
}

std::vector<MoveRecord> OwnershipRecords::PreparedMoves::commit(const std::stop_token& stop) {
    try {
        record_->commit();
    } catch (const std::exception&) {
        undo(stop);
        throw;
    }
    // They have not arrived any more, which the record says already.
    for (const std::string& path : arrivals_) {
        ::unlink(path.c_str());
    }
    return std::move(moves_);
}

// It may stand already, and only its directory not be durable.
void OwnershipRecords::PreparedMoves::undo(const std::stop_token& stop) {
    constexpr std::chrono::seconds kPause{1};
    std::mutex mutex;  // guards nothing: the wait below needs one
    std::unique_lock lock(mutex);
    std::condition_variable_any stopped;
    for (bool said = false; !stop.stop_requested();) {
        try {
            record_->remove();
            return;
        } catch (const std::exception& error) {
            if (!std::exchange(said, true)) {
                log_error("it is not known whether export '" + moves_.front().export_name + "'" +
                          (moves_.size() > 1 ? " and others have" : " has") + " moved away: '" +
                          record_->path() + "' could neither be made durable nor be removed (" +
                          error.what() + "); writers wait until it can be removed");
            }
        }
        stopped.wait_for(lock, stop, kPause, [] { return false; });
    }
}

void OwnershipRecords::record_arrival(const Export& arrived, const std::string& job) const {
    make_for_good(arrivals_);
    const auto now = std::chrono::system_clock::now();
    json stored = describe(arrived.name(), arrived.identity());
    stored["job"] = job;
    stored["arrived_at"] = utc_text(now);
    DurableFile record(new_record(arrivals_, now), stored.dump(2) + "\n");
    try {
        record.commit();
        take_back(arrived.file());
    } catch (const std::exception&) {
        try {
            record.remove();
        } catch (const std::system_error& error) {
            log_error("remove '" + record.path() + "', or the next start believes that " +
                      arrived.quoted() + " has landed: " + error.what());
        }
        throw;
    }
}

std::optional<ArrivalRecord> OwnershipRecords::find_arrival(const DiskFile& file) const {
    const auto found = arrivals_of(identity_of(file));
    // The last: a kill in the middle of a record may have left an earlier one.
    const auto last = std::ranges::max_element(found, {}, &ArrivalRecord::path);
    return last == found.end() ? std::nullopt : std::optional(*last);
}

void OwnershipRecords::forget_arrival(const DiskFile& file) const {
    const auto found = arrivals_of(identity_of(file));
    for (const ArrivalRecord& each : found) {
        ::unlink(each.path.c_str());
    }
    if (!found.empty()) {
        sync_directory_of(arrivals_ + "/");
    }
}

std::vector<ArrivalRecord> OwnershipRecords::arrivals_of(const DiskIdentity& disk) const {
    std::vector<ArrivalRecord> found;
    for (const std::string& path : records_in(arrivals_)) {
        const std::optional<std::string> text = read_file(path);
        if (!text) {
            continue;  // another server of this directory has removed it
        }
        const json stored = json::parse(*text, nullptr, false);
        try {
            if (identity_in(stored).is_same_as(disk)) {
                found.push_back(
                    {.job = stored.at("job"), .arrived_at = stored.at("arrived_at"), .path = path});
            }
        } catch (const json::exception& error) {
            throw damaged(path, error);
        }
    }
    return found;
}

std::vector<OwnershipRecords::Stored> OwnershipRecords::records_of(const DiskFile& file) const {
    std::vector<Stored> found;
    const DiskIdentity disk = identity_of(file);
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
    const std::vector<Stored> found = records_of(file);
    return found.empty() ? std::nullopt : std::optional(found.front().record);
}

void OwnershipRecords::take_back(const DiskFile& file) const {
    if (records_of(file).empty()) {
        return;
    }
    const UniqueFd lock = lock_records(directory_);
    for (const Stored& stored : records_of(file)) {
        json record = json::parse(read_file(stored.path).value_or(""), nullptr, false);
        if (record.is_discarded()) {
            throw std::runtime_error("the record '" + stored.path + "' is gone or damaged");
        }
        record.at("disks").at(stored.index)[kTakenBack] =
            utc_text(std::chrono::system_clock::now());
        write_file_durably(stored.path, record.dump(2) + "\n");
    }
}

}  // namespace nbdm
