// SPDX-License-Identifier: Apache-2.0
#include "server/executor.h"

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <unistd.h>
#include <utility>

#include "control/log.h"
#include "iothread/check.h"

namespace nbdm {

using wire::Command;
using wire::Error;

namespace {

// Reads shorter than this are answered as data without asking where the holes are: the question
// costs more than the zeroes.
constexpr std::uint64_t kMinBytesForHoles = 32 << 10;
// A read of this many bytes is sent from the page cache where all of it is there: one system call
// more, one copy less.
constexpr std::uint64_t kMinBytesFromFile = 64 << 10;
// Shorter writes to the page cache do not take turns: the kernel's wait for the inode's lock is
// over before a thread could sleep, and one that is put aside with the turn in hand makes all wait
// for it (docs/performance.md).
constexpr std::uint64_t kMinBytesForTurn = 32 << 10;
// A connection's failed requests that are logged one by one.
constexpr int kMaxLoggedFailures = 20;

}  // namespace

Executor::Executor(IoThread& thread, Ring& ring, int own_fd, const Session& session,
                   ReplyWriter& answer, Surroundings surroundings)
    : ring_(ring),
      own_fd_(own_fd),
      session_(session),
      export_(*session.served),
      answer_(answer),
      peer_(surroundings.peer),
      statistics_(surroundings.statistics),
      extents_(export_.file(), own_fd),
      block_status_(session, own_fd, extents_, answer),
      attachment_(export_.gate(), thread),
      lane_(attachment_.lane()) {}

// Which parts of it are holes, and whether the kernel can send the rest from where it is.
void Executor::plan(Request& request) {
    if (request.command != Command::read) {
        return;
    }
    static_assert(kMinBytesForHoles <= kMinBytesFromFile);
    request.extents[0] = {request.range, false};
    request.extent_count = 1;
    if (request.range.length < kMinBytesForHoles) {
        return;
    }
    const DiskFile& file = export_.file();
    const DiskFile::State state = file.state();
    // Of a file that has become shorter, pages beyond its end may be there for a while.
    request.from_file = request.range.length >= kMinBytesFromFile && !state.shorter &&
                        file.is_resident(request.range);
    if (session_.replies == ReplyStyle::simple || request.has(wire::kDf) || !state.may_have_holes) {
        return;
    }
    request.extent_count = 0;
    for (Range left = request.range; !left.empty();) {
        const bool last = request.extent_count == Request::kMaxExtents - 1;
        const FileExtent extent =
            last ? FileExtent{left, false} : extents_.next_extent(left, request.arrived);
        request.extents[request.extent_count++] = extent;
        left = left.after(extent.range.length);
    }
}

std::size_t Executor::memory_for(const Request& request) const noexcept {
    switch (request.command) {
        case Command::read:
            return request.from_file ? 0 : request.range.length;
        case Command::write:
            return request.range.length;
        case Command::block_status:
            return block_status_.memory_bytes();
        default:
            return 0;
    }
}

Error Executor::read_payload(Request& request, std::span<const std::byte> payload) {
    return block_status_.read_payload(request, payload);
}

void Executor::start(Request& request) {
    switch (request.command) {
        case Command::read:
            if (request.from_file) {
                finish(request, 0);
            } else {
                continue_read(request);
            }
            break;
        case Command::write:
        case Command::trim:
        case Command::write_zeroes:
            request.begins = export_.throttle().begins_at(request.range.length, request.arrived);
            if (!slowed_.empty() || request.begins > request.arrived) {
                slowed_.push_back(&request);
            } else if (!waiting_.empty() || !enter_and_write(request)) {
                waiting_.push_back(&request);
            }
            break;
        case Command::flush:
            ++on_disk_;
            request.flush(ring_, export_.file());
            break;
        case Command::cache:
            read_ahead(request);
            break;
        case Command::block_status:
            long_step_ = block_status_.reads(request);
            if (const int error = block_status_.answer(request); error == EINVAL) {
                refuse(request, Error::invalid);
            } else if (error != 0) {
                finish(request, error);
            } else {
                statistics_.succeeded(request.command, request.range.length);
            }
            break;
        case Command::disconnect:
            break;
    }
}

// Not one that the storage takes from where it is, or that has to wait.
bool Executor::write_staged(Request& request, std::span<const std::byte> payload) {
    if (export_.file().direct() || !slowed_.empty() || !waiting_.empty() ||
        export_.throttle().slows(request.arrived) ||
        export_.gate().enter(lane_) != WriteGate::Entry::entered) {
        return false;
    }
    write_data(request, payload.data());
    return true;
}

void Executor::continue_read(Request& request) {
    while (request.next_extent < request.extent_count &&
           request.extents[request.next_extent].hole) {
        ++request.next_extent;
    }
    if (request.next_extent == request.extent_count) {
        finish(request, 0);
        return;
    }
    const Range range = request.extents[request.next_extent++].range;
    std::byte* into = request.buffer.data() + (range.offset - request.range.offset);
    DiskFile& file = export_.file();
    const std::uint32_t unit = file.request_alignment();
    ++on_disk_;
    if (is_aligned(range.offset, unit) && is_aligned(range.length, unit) &&
        is_aligned(range.offset - request.range.offset, unit)) {
        request.read(ring_, file, range, into, request.buffer.ring_index());
    } else {
        disk_finished(request, file.read_unaligned(range, into));
    }
}

// Only a direct export knows requests that the storage cannot take as they are.
bool Executor::needs_disk_alone(const Request& request) const noexcept {
    const DiskFile& file = export_.file();
    const std::uint32_t unit = file.request_alignment();
    if (is_aligned(request.range.offset, unit) && is_aligned(request.range.length, unit)) {
        return false;
    }
    // Of what is zeroed, only the ends. Where it must be fast, file systems know how.
    const bool zeroes = request.command == Command::write_zeroes && !request.ends_are_zero &&
                        (file.is_block_device() || !request.has(wire::kFastZero));
    return request.command == Command::write || zeroes;
}

// False: the gate is shut, by a hold perhaps (held_), or earlier writes of this connection have to
// come back first.
bool Executor::enter_and_write(Request& request) {
    WriteGate& gate = export_.gate();
    const bool alone = needs_disk_alone(request);
    if (alone && lane_.in_flight.load(std::memory_order_relaxed) > 0) {
        return false;
    }
    switch (alone ? gate.enter_alone(lane_) : gate.enter(lane_)) {
        case WriteGate::Entry::held:
            held_ = true;
            return false;
        case WriteGate::Entry::shut:
            return false;
        case WriteGate::Entry::retired:
            refuse(request, Error::shutdown);
            return true;
        case WriteGate::Entry::entered:
            break;
    }
    if (!alone) {
        write(request);
        return true;
    }
    return write_alone(request) || enter_and_write(request);
}

void Executor::start_waiting(Clock::time_point now) {
    while (!slowed_.empty() && slowed_.front()->begins <= now) {
        waiting_.push_back(slowed_.front());
        slowed_.pop_front();
    }
    held_ = false;
    while (!waiting_.empty() && enter_and_write(*waiting_.front())) {
        waiting_.pop_front();
    }
}

std::optional<Executor::Clock::time_point> Executor::next_start() const noexcept {
    return slowed_.empty() ? std::nullopt : std::optional(slowed_.front()->begins);
}

bool Executor::is_parking_full(std::size_t bytes, std::size_t limit) const noexcept {
    if (!export_.gate().held()) {
        return false;
    }
    for (const std::deque<Request*>* queue : {&waiting_, &slowed_}) {
        for (const Request* request : *queue) {
            bytes += request->buffer.capacity_bytes();
        }
    }
    return bytes > limit;
}

Request* Executor::take_waiting() noexcept {
    std::deque<Request*>& queue = waiting_.empty() ? slowed_ : waiting_;
    if (queue.empty()) {
        return nullptr;
    }
    Request* request = queue.front();
    queue.pop_front();
    return request;
}

void Executor::write_data(Request& request, const std::byte* from) {
    ++on_disk_;
    DiskFile& file = export_.file();
    if (!write_turn_ && request.range.length >= kMinBytesForTurn) {
        write_turn_ = file.take_write_turn();
    }
    request.write(ring_, file, request.range, from, request.has(wire::kFua),
                  request.buffer.ring_index());
}

void Executor::write(Request& request) {
    DiskFile& file = export_.file();
    const bool fua = request.has(wire::kFua);
    switch (request.command) {
        case Command::write:
            write_data(request, request.buffer.data());
            break;
        case Command::trim:
            ++on_disk_;
            request.trim(ring_, file, request.range, fua);
            break;
        default:
            ++on_disk_;
            request.zero(ring_, file,
                         request.ends_are_zero
                             ? whole_units(request.range, file.request_alignment())
                             : request.range,
                         {.may_punch = !request.has(wire::kNoHole),
                          .fast_only = request.has(wire::kFastZero)},
                         fua);
            break;
    }
}

// False: the ends are done, and the rest of the request is like any other.
bool Executor::write_alone(Request& request) noexcept {
    const DiskFile& file = export_.file();
    DiskFile::Written done{.error = ENOTSUP};
    if (request.command == Command::write) {
        done = file.write_unaligned(request.range, request.buffer.data());
    } else if (!request.has(wire::kFastZero)) {
        const Range whole = whole_units(request.range, file.request_alignment());
        done = file.write_unaligned(Range::from_to(request.range.offset, whole.offset), nullptr);
        if (done.error == 0) {
            done = file.write_unaligned(Range::from_to(whole.end(), request.range.end()), nullptr);
        }
        request.ends_are_zero = done.error == 0;
    }
    const bool goes_on =
        request.ends_are_zero && !whole_units(request.range, file.request_alignment()).empty();
    if (done.error == 0 && !goes_on && request.has(wire::kFua) && ::fdatasync(own_fd_) < 0) {
        done = {.error = errno, .lost_write_back = true};
    }
    if (done.lost_write_back) {
        export_.note_write_back_error(done.error);
    }
    export_.trackers().mark(request.range);
    export_.gate().leave_alone(lane_);
    if (goes_on) {
        return false;
    }
    finish(request, done.error);
    return true;
}

// The disk is done with a request or with a part of it.
void Executor::disk_finished(Request& request, int error) noexcept {
    --on_disk_;
    if (request.command == Command::read && error == 0) {
        continue_read(request);
        return;
    }
    if (error != 0 && request.command != Command::read && request.was_syncing()) {
        export_.note_write_back_error(error);
    }
    if (request.writes()) {
        // Whatever the result: a failed write may have changed a part. After the disk, before the
        // answer, and before the gate is told.
        export_.trackers().mark(request.range);
        export_.gate().leave(lane_);
    }
    finish(request, error);
}

void Executor::finish(Request& request, int error) noexcept {
    if (request.command == Command::flush && error == 0) {
        error = export_.write_back_error();
    }
    if (error != 0) {
        log_failure(request, error);
        refuse(request, wire::error_from_errno(error));
        return;
    }
    statistics_.succeeded(request.command, request.range.length);
    if (request.command == Command::read) {
        answer_.read(request);
    } else {
        answer_.done(request);
    }
}

void Executor::read_ahead(Request& request) {
    // Advice: the kernel may do it, now or later, or not at all.
    if (!export_.file().direct()) {
        ::posix_fadvise(own_fd_, static_cast<off_t>(request.range.offset),
                        static_cast<off_t>(request.range.length), POSIX_FADV_WILLNEED);
    }
    finish(request, 0);
}

void Executor::refuse(Request& request, Error error) {
    statistics_.failed(error);
    answer_.error(request, error);
}

void Executor::log_failure(const Request& request, int error) {
    if (error == ENOTSUP || logged_failures_ > kMaxLoggedFailures) {
        return;
    }
    const char* then = ++logged_failures_ > kMaxLoggedFailures
                           ? "; further failures of this connection are not logged"
                           : "";
    const char* verbs[] = {"read",  "write",        "",        "flush", "trim",
                           "cache", "write zeroes", "describe"};
    log_warning(export_.quoted() + ": cannot " + verbs[static_cast<std::size_t>(request.command)] +
                " " + std::to_string(request.range.length) + " bytes at offset " +
                std::to_string(request.range.offset) + " for " + peer_ + ": " + error_text(error) +
                then);
}

}  // namespace nbdm
