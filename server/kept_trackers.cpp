// SPDX-License-Identifier: Apache-2.0
#include "server/kept_trackers.h"

#include <algorithm>
#include <cctype>
#include <stdexcept>
#include <unistd.h>

#include "control/durable_file.h"
#include "control/log.h"
#include "control/runtime_paths.h"
#include "iothread/check.h"
#include "server/tracker_record.h"

namespace nbdm {

namespace {

std::string trackers_of(const Export& served, std::size_t count) {
    return served.quoted() + ": " +
           (count == 1 ? "1 tracker" : std::to_string(count) + " trackers");
}

// Written data that is lost later would be at the consumer, and not be called dirty here.
void sync(const Export& served) {
    const DiskFile& file = served.file();
    int error = served.write_back_error();
    if (error == 0 && ::fsync(file.fd()) < 0) {
        error = errno;
    }
    if (error != 0) {
        throw errno_error(error, "cannot sync '" + file.path() + "'");
    }
}

}  // namespace

void KeptTrackers::save(const Export& served) const {
    if (served.read_only()) {
        return;
    }
    const std::size_t count = served.trackers().names().size();
    if (count == 0) {
        return;
    }
    const std::string who = trackers_of(served, count);
    std::string path;
    try {
        const DiskIdentity disk = served.identity();
        path = path_for(disk);
        sync(served);
        const TrackerRecord record{.disk = disk,
                                   .stamp = DiskStamp::settled(served.file()),
                                   .trackers = served.trackers().image()};
        if (record.stamp.size_bytes != served.size_bytes()) {
            throw std::runtime_error("the disk has " + std::to_string(record.stamp.size_bytes) +
                                     " bytes by now, and was served with " +
                                     std::to_string(served.size_bytes()));
        }
        ensure_directory(directory_, 0700);
        remove_leftovers(directory_);
        write_file_durably(path, record.encode());
        log_info(who + " kept for the next start");
    } catch (const std::exception& error) {
        ::unlink(path.c_str());
        log_warning(who + " not kept, so that mirrors will compare both disks: " + error.what());
    }
}

void KeptTrackers::restore(Export& served) const {
    if (served.options().read_only) {
        return;
    }
    try {
        const DiskIdentity disk = served.identity();
        const std::optional<std::string> stored = take(disk);
        if (!stored) {
            return;
        }
        const TrackerRecord record = TrackerRecord::decode(*stored);
        if (!record.disk.is_same_as(disk)) {
            throw std::runtime_error("they are of another file, that was deleted");
        }
        const DiskStamp now = DiskStamp::of(served.file());
        if (const std::string why = now.difference_from(record.stamp); !why.empty()) {
            throw std::runtime_error(why);
        }
        served.trackers().restore(record.trackers);
        log_info(trackers_of(served, record.trackers.trackers.size()) +
                 " as at the end of the last server");
    } catch (const std::exception& error) {
        log_warning(served.quoted() +
                    ": the trackers that were kept of it are not used, so that mirrors will "
                    "compare both disks: " +
                    error.what());
    }
}

void KeptTrackers::drop(const Export& served) const {
    try {
        static_cast<void>(take(served.identity()));
    } catch (const std::exception& error) {
        log_warning(served.quoted() +
                    ": the trackers that were kept of it cannot be removed: " + error.what());
    }
}

// Known by its storage, and so under any name of the export or of the file.
std::string KeptTrackers::path_for(const DiskIdentity& disk) const {
    std::string name = disk.storage;
    std::replace_if(
        name.begin(), name.end(),
        [](unsigned char letter) { return std::isalnum(letter) == 0 && letter != '.'; }, '-');
    return directory_ + "/" + name + ".trackers";
}

std::optional<std::string> KeptTrackers::take(const DiskIdentity& disk) const {
    const std::string path = path_for(disk);
    std::optional<std::string> stored = read_file(path);
    if (stored) {
        check_errno(::unlink(path.c_str()), "cannot remove '" + path + "'");
        sync_directory_of(path);
    }
    return stored;
}

}  // namespace nbdm
