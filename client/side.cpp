// SPDX-License-Identifier: Apache-2.0
#include "client/side.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <poll.h>
#include <system_error>
#include <utility>

#include "client/file_endpoint.h"
#include "client/nbd_endpoint.h"
#include "control/disk_identity.h"
#include "control/durable_file.h"
#include "control/log.h"
#include "iothread/disk_place.h"

namespace nbdm {

namespace {

// Pieces of a copy begin and end at multiples of this at least.
constexpr std::uint32_t kBlockBytes = 4096;

// The connections of another mirror of a target, which may have been killed just now, may take this
// long to end.
constexpr std::chrono::seconds kOthersMayLeave{3};

// Contexts of an nbd-mirror-server with one number for all of a disk.
const std::string kAllocated = "nbd-mirror:allocated";
const std::string kRoom = "nbd-mirror:room";
const std::string kMirrors = "nbd-mirror:mirrors";

std::optional<std::uint32_t> find(const std::map<std::string, std::uint32_t>& numbers,
                                  const std::string& context) {
    const auto found = numbers.find(context);
    return found == numbers.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::uint64_t> bytes_of(std::optional<std::uint32_t> mebibytes) {
    return mebibytes ? std::optional(std::uint64_t{*mebibytes} << 20) : std::nullopt;
}

std::unique_ptr<DiskFile> open_source_file(const std::string& path) {
    try {
        return std::make_unique<DiskFile>(path, DiskFile::Options{});
    } catch (const std::system_error& error) {
        if (error.code() != std::errc::device_or_resource_busy) {
            throw;
        }
    }
    auto opened = std::make_unique<DiskFile>(
        path, DiskFile::Options{.others_may_write = true, .create_bytes = {}});
    log_warning("'" + path +
                "' is in use by another program; what is read of it may be of different moments");
    return opened;
}

std::unique_ptr<DiskFile> open_target_file(const std::string& path,
                                           std::optional<std::uint64_t> create_bytes) {
    try {
        return std::make_unique<DiskFile>(path, DiskFile::Options{.writable = true,
                                                                  .cache = CacheMode::writeback,
                                                                  .create_bytes = create_bytes});
    } catch (const std::system_error& error) {
        if (error.code() == std::errc::no_such_file_or_directory && !create_bytes) {
            throw JobError(std::string(error.what()) + " (--create makes it)");
        }
        throw;
    }
}

}  // namespace

Side Side::open_source(const Location& location, const Cancellation& cancellation) {
    Side side;
    side.name_ = location.text;
    if (location.kind == Location::Kind::path) {
        side.use_file(open_source_file(location.path_or_uri));
    } else {
        side.context_ = kBackgroundContext;
        side.use_server(location.path_or_uri, cancellation);
    }
    return side;
}

Side Side::open_export(const Location& location, const OpenedDisk& disk,
                       const Cancellation& cancellation) {
    Side side = open_source(location, cancellation);
    const bool from_disk = side.read_from_disk(disk);
    log_debug(side.name_ + " is read from " + (from_disk ? disk.path : "its server"));
    return side;
}

// Whether it can be; nothing is opened that is not the disk.
bool Side::read_from_disk(const OpenedDisk& disk) {
    if (disk.place.empty() || place_of(disk.path) != disk.place) {
        return false;
    }
    try {
        auto opened = std::make_unique<DiskFile>(
            disk.path,
            DiskFile::Options{.cache = disk.direct ? CacheMode::direct : CacheMode::writeback,
                              .others_may_write = true,
                              .create_bytes = {}});
        // What is not whole blocks the server knows how to read, past the page cache too.
        if (opened->place() != disk.place || opened->size_bytes() != traits_.size_bytes ||
            opened->request_alignment() > kBlockBytes ||
            !is_aligned(traits_.size_bytes, opened->request_alignment())) {
            return false;
        }
        disk_ = std::move(opened);
    } catch (const std::system_error&) {  // it is not for this program
        return false;
    }
    traits_.alignment = std::max<std::uint64_t>(traits_.alignment, disk_->request_alignment());
    first_.reset();  // nothing is read over it
    return true;
}

Side Side::open_target(const Location& location, const TargetOptions& options,
                       const Cancellation& cancellation) {
    Side side;
    side.name_ = location.text;
    side.is_zero_ = options.is_zero;
    side.context_ = options.session;
    if (location.kind == Location::Kind::path) {
        side.use_file(open_target_file(location.path_or_uri, options.create_bytes));
        side.content_ = TargetContent{
            .disk = DiskIdentity::of(side.file_->fd(), location.path_or_uri).fingerprint()};
        if (side.file_->created()) {
            sync_directory_of(location.path_or_uri);
            side.is_zero_ = true;
        }
    } else {
        side.use_server(location.path_or_uri, cancellation);
        side.traits_.fences =
            !options.session.empty() &&
            nbd_can_meta_context(side.first_->get(), options.session.c_str()) == 1;
        if (side.traits_.fences) {
            side.wait_until_alone(cancellation);
        }
    }
    return side;
}

void Side::use_server(const std::string& uri, const Cancellation& cancellation) {
    uri_ = uri;
    first_ = connect({LIBNBD_CONTEXT_BASE_ALLOCATION, kIncomingContext, kAllocated, kRoom, kMirrors,
                      TargetContent::kDiskContext, TargetContent::kFillersContext},
                     cancellation);
    traits_ = first_->traits();
    ask_server(cancellation);
}

void Side::ask_server(const Cancellation& cancellation) {
    const auto numbers = ask_numbers(
        *first_, {kAllocated, kRoom, kMirrors, TargetContent::kDiskContext}, cancellation);
    space_ = {.allocated_bytes = bytes_of(find(numbers, kAllocated)),
              .room_bytes = bytes_of(find(numbers, kRoom))};
    content_ = TargetContent::in(numbers);
    mirrors_ = find(numbers, kMirrors).value_or(1);
}

// Of two that come at the same time both see the other; none has written anything yet.
void Side::wait_until_alone(const Cancellation& cancellation) {
    constexpr int kAskAgainMs = 50;
    const auto end = std::chrono::steady_clock::now() + kOthersMayLeave;
    for (; mirrors_ > 1; ask_server(cancellation)) {
        if (std::chrono::steady_clock::now() >= end) {
            throw ConnectionLost("target " + name_ + ": another mirror fills this export");
        }
        ::poll(nullptr, 0, kAskAgainMs);
    }
}

void Side::use_file(std::unique_ptr<DiskFile> file) {
    file_ = std::move(file);
    traits_.size_bytes = file_->size_bytes();
    traits_.read_only = !file_->writable();
    traits_.alignment = file_->request_alignment();
    traits_.knows_extents = !file_->is_block_device();
    if (const auto space = file_->space()) {
        space_ = {.allocated_bytes = space->allocated_bytes, .room_bytes = space->room_bytes};
    }
}

std::unique_ptr<NbdHandle> Side::connect(std::vector<std::string> meta_contexts,
                                         const Cancellation& cancellation) const {
    if (!context_.empty()) {
        meta_contexts.push_back(context_);
    }
    return std::make_unique<NbdHandle>(uri_, meta_contexts, cancellation);
}

std::unique_ptr<Scout> Side::open_scout(const std::string& tracker,
                                        const Cancellation& cancellation) const {
    if (file_) {
        return std::make_unique<FileScout>(*file_);
    }
    if (traits_.can_multi_conn || !tracker.empty()) {
        return std::make_unique<NbdScout>(uri_, tracker, context_, cancellation);
    }
    const Range all{0, traits_.size_bytes};
    if (!first_ || !traits_.knows_extents || all.empty()) {
        return std::make_unique<KnownScout>(std::vector<Extent>{{.range = all}});
    }
    return std::make_unique<KnownScout>(all_extents(*first_, all, cancellation));
}

std::unique_ptr<DigestSource> Side::open_digests(std::uint64_t seed,
                                                 const Cancellation& cancellation) const {
    if (file_) {
        return std::make_unique<FileDigests>(*file_, seed);
    }
    // One that does not promise multi-conn is no nbd-mirror-server, and may accept no second one.
    return traits_.can_multi_conn ? NbdDigests::connect(uri_, context_, seed, cancellation)
                                  : nullptr;
}

OpenedEndpoint Side::open_endpoint(Ring& ring, std::unique_ptr<NbdHandle> handle,
                                   const Cancellation& cancellation) const {
    OpenedEndpoint opened;
    if (DiskFile* file = disk_ ? disk_.get() : file_.get()) {
        opened.endpoint = std::make_unique<FileEndpoint>(ring, *file);
    } else {
        opened.handle = handle ? std::move(handle) : connect({}, cancellation);
        opened.endpoint = std::make_unique<NbdEndpoint>(ring, *opened.handle);
    }
    return opened;
}

}  // namespace nbdm
