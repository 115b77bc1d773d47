// SPDX-License-Identifier: Apache-2.0
#include "server/ownership.h"

#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <unistd.h>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <nlohmann/json.hpp>

#include "control/durable_file.h"
#include "control/runtime_paths.h"
#include "iothread/check.h"

namespace nbdm {

namespace {

std::string now_utc() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

// When the file was made, so that a new file with the number of a deleted one is not taken for it;
// 0 where the file system does not tell.
std::int64_t born_at_ns(const DiskFile& file) {
    struct statx status {};
    if (file.is_block_device() ||
        ::statx(file.fd(), "", AT_EMPTY_PATH, STATX_BTIME, &status) != 0 ||
        (status.stx_mask & STATX_BTIME) == 0) {
        return 0;
    }
    return status.stx_btime.tv_sec * 1'000'000'000 + status.stx_btime.tv_nsec;
}

}  // namespace

std::string OwnershipRecords::record_path(const DiskFile& file) const {
    struct stat status {};
    check_errno(::fstat(file.fd(), &status), "cannot examine '" + file.path() + "'");
    const bool device = file.is_block_device();
    const dev_t number = device ? status.st_rdev : status.st_dev;
    return directory_ + "/" + (device ? "device-" : "file-") + std::to_string(major(number)) + "-" +
           std::to_string(minor(number)) + (device ? "" : "-" + std::to_string(status.st_ino)) +
           ".json";
}

void OwnershipRecords::record_move(const Export& moved, const std::string& moved_to,
                                   const std::string& job) const {
    ensure_directory(directory_, 0700);
    const nlohmann::json record = {
        {"export", moved.name()}, {"path", moved.file().path()},
        {"moved_to", moved_to},   {"job", job},
        {"moved_at", now_utc()},  {"born_at_ns", born_at_ns(moved.file())}};
    write_file_durably(record_path(moved.file()), record.dump(2) + "\n");
}

std::optional<MoveRecord> OwnershipRecords::find(const DiskFile& file) const {
    const std::string path = record_path(file);
    const std::optional<std::string> text = read_file(path);
    if (!text) {
        return std::nullopt;
    }
    const auto record = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
    MoveRecord result;
    if (record.is_object()) {
        const std::int64_t born_at = born_at_ns(file);
        if (born_at != 0 && record.value("born_at_ns", std::int64_t{0}) != 0 &&
            record["born_at_ns"] != born_at) {
            return std::nullopt;  // of a file that is gone
        }
        const auto field = [&](const char* name) {
            return record.contains(name) && record[name].is_string()
                       ? record[name].get<std::string>()
                       : std::string();
        };
        result = {field("export"), field("path"), field("moved_to"), field("job"),
                  field("moved_at")};
    }
    if (result.moved_to.empty()) {
        result.moved_to = "an unknown place (the record '" + path + "' is damaged)";
    }
    return result;
}

void OwnershipRecords::take_back(const DiskFile& file) const {
    const std::string path = record_path(file);
    check_errno(std::rename(path.c_str(), (path + ".taken-back").c_str()),
                "cannot set '" + path + "' aside");
    const UniqueFd directory(check_errno(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY),
                                         "cannot open '" + directory_ + "'"));
    check_errno(::fsync(directory.get()), "cannot make '" + directory_ + "' durable");
}

}  // namespace nbdm
