// SPDX-License-Identifier: Apache-2.0
#include "client/copy.h"

#include <algorithm>
#include <utility>

#include "client/source_server.h"
#include "control/log.h"
#include "control/size.h"

namespace nbdm {

namespace {

Side open_source(const CopyOptions& options, const Cancellation& cancellation) {
    if (options.source.kind != Location::Kind::server_export) {
        return Side::open_source(options.source, cancellation);
    }
    const SourceServer::ExportStatus status = SourceServer(options.source, cancellation).status();
    return Side::open_export(status.address, status.disk, cancellation);
}

// A disk whose server is gone may be written to by others; no read of it would tell.
void check_server(const Side& source, const Scout& scout) {
    if (source.reads_disk()) {
        scout.check_connected();
    }
}

// Once a connection to the server stands, with which its disk stays what it is; that was opened
// before. Throws JobError when it is another by now.
void check_still_the_source(const CopyOptions& options, const Side& source,
                            const Cancellation& cancellation) {
    if (source.reads_disk() &&
        source.reads_another(SourceServer(options.source, cancellation).status().disk)) {
        throw JobError("the server of " + source.name() + " serves another disk by now");
    }
}

// Throws JobError when both name one disk.
void check_two_disks(const CopyOptions& options, const Cancellation& cancellation) {
    SourceServer::ExportStatus status;
    if (options.source.kind == Location::Kind::server_export) {
        status = SourceServer(options.source, cancellation).status();
    } else if (options.source.kind == Location::Kind::path) {
        status.disk.path = options.source.path_or_uri;
    } else {
        status.uris = {options.source.path_or_uri};
    }
    if (is_same_disk(options.target, status.disk.path, status.uris)) {
        throw JobError("'" + options.target.text + "' is both the source and the target");
    }
}

}  // namespace

TargetZeroes known_zeroes(const Side& target, const Cancellation& cancellation) {
    if (target.is_zero()) {
        return TargetZeroes(true);
    }
    return TargetZeroes(target.open_scout("", cancellation), target.traits().size_bytes);
}

std::string copy_disk(const CopyOptions& options, JobStatus& status, Pace& pace,
                      const Cancellation& cancellation) {
    check_two_disks(options, cancellation);
    Side source = open_source(options, cancellation);
    const std::uint64_t size = source.traits().size_bytes;
    if (size == 0) {
        throw JobError("source " + source.name() + " is empty: there is nothing to copy");
    }
    Side::TargetOptions target_options{
        .create_bytes = {}, .is_zero = options.target_is_zero, .session = {}};
    if (options.create) {
        target_options.create_bytes = size;
    }
    Side target = Side::open_target(options.target, target_options, cancellation);
    check_sides(source, target);
    warn_of_full_target(source, target);
    if (target.traits().size_bytes > size) {
        log_info("target " + target.name() + " is larger than the source; what lies beyond " +
                 std::to_string(size) + " bytes is left as it is");
    }
    if (!target.traits().can_flush) {
        log_warning("target " + target.name() +
                    " cannot flush: the copy is as durable as its "
                    "server makes it");
    }
    DiskStatus& disk = status.disk(0);
    disk.set_size(size);
    disk.add_to_do(size);
    const auto scout = source.open_scout("", cancellation);
    check_still_the_source(options, source, cancellation);
    TargetZeroes zeroes = known_zeroes(target, cancellation);
    Engine engine(source, target, options.engine, disk, pace, cancellation);
    status.set_phase(Phase::copying);
    const auto check_source = [&] { check_server(source, *scout); };
    engine.copy({.compare = options.delta}, *scout, zeroes, check_source);
    engine.flush(check_source);
    if (options.verify) {
        disk.add_to_do(size);
        TargetZeroes written(target.open_scout("", cancellation), target.traits().size_bytes);
        const std::vector<Range> differences =
            engine.compare({}, *source.open_scout("", cancellation), written, check_source).ranges;
        if (!differences.empty()) {
            throw JobError("the copy differs from the source:\n" + describe_first(differences));
        }
    }
    check_source();
    return "copied " + format_size(static_cast<double>(size)) + ", " +
           format_size(static_cast<double>(disk.counters.sent_bytes.load())) + " of it as data" +
           (options.verify ? ", and verified it" : "");
}

std::vector<Range> compare_disks(const CopyOptions& options, JobStatus& status, Pace& pace,
                                 const Cancellation& cancellation) {
    Side source = open_source(options, cancellation);
    Side target = Side::open_source(options.target, cancellation);
    const std::uint64_t size = source.traits().size_bytes;
    if (size == 0) {
        throw JobError("source " + source.name() + " is empty: there is nothing to compare");
    }
    if (target.traits().size_bytes < size) {
        throw JobError("target " + target.name() + " is shorter than the source: " +
                       std::to_string(target.traits().size_bytes) + " bytes, not " +
                       std::to_string(size));
    }
    if (target.traits().size_bytes > size) {
        log_info("target " + target.name() + " is larger than the source; the first " +
                 std::to_string(size) + " bytes are compared");
    }
    DiskStatus& disk = status.disk(0);
    disk.set_size(size);
    disk.add_to_do(size);
    const auto scout = source.open_scout("", cancellation);
    check_still_the_source(options, source, cancellation);
    TargetZeroes zeroes(target.open_scout("", cancellation), target.traits().size_bytes);
    Engine engine(source, target, options.engine, disk, pace, cancellation);
    status.set_phase(Phase::copying);
    const auto check_source = [&] { check_server(source, *scout); };
    std::vector<Range> differences = engine.compare({}, *scout, zeroes, check_source).ranges;
    check_source();
    return differences;
}

}  // namespace nbdm
