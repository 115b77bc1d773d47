// SPDX-License-Identifier: Apache-2.0
#include "server/transmission.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <utility>

#include "control/log.h"
#include "iothread/check.h"

namespace nbdm {

using wire::Command;
using wire::Error;

namespace {

// Entries of the ring's submission queue; more are submitted in several rounds.
constexpr unsigned kRingEntries = 128;
// Reads shorter than this are answered as data without asking where the holes are: the question
// costs more than the zeroes.
constexpr std::uint64_t kMinBytesForHoles = 32 << 10;
// A read of this many bytes is sent from the page cache where all of it is there: one system call
// more, one copy less.
constexpr std::uint64_t kMinBytesFromFile = 64 << 10;
// A connection without requests for this long gives its buffers back.
constexpr std::chrono::milliseconds kIdleLimit{1000};
// Writes that a hold keeps waiting have their data in memory; more of a connection's are not
// received meanwhile, so that other exports' clients find some.
constexpr std::size_t kMaxParkedBytes = std::size_t{4} << 20;
// A connection's failed requests that are logged one by one.
constexpr int kMaxLoggedFailures = 20;

}  // namespace

Transmission::Transmission(IoThread& thread, int fd, Session session, Surroundings surroundings)
    : thread_(thread),
      session_(std::move(session)),
      export_(*session_.served),
      peer_(std::move(surroundings.peer)),
      statistics_(surroundings.statistics),
      rules_{.size_bytes = export_.size_bytes(),
             .read_only = session_.read_only,
             .replies = session_.replies,
             .block_status = !session_.contexts.empty()},
      own_fd_(export_.file().open_again()),
      memory_(surroundings.memory, thread),
      ring_(kRingEntries),
      buffers_(kMaxBufferBytes, &memory_, export_.file().direct() ? &ring_ : nullptr),
      wake_(ring_, thread),
      receiver_(ring_, fd),
      replies_(ring_, fd, own_fd_.get()),
      answer_(replies_, session_.replies),
      block_status_(session_, own_fd_.get(), answer_),
      requests_(std::make_unique<std::array<Request, kMaxRequests>>()),
      attachment_(export_.gate(), thread),
      lane_(attachment_.lane()),
      patience_(surroundings.request_timeout) {
    // A block device is opened for writing once: whenever such an opening ends, udev looks what the
    // disk has become.
    const bool shared = export_.file().is_block_device();
    if (!shared) {
        ring_.register_file(own_fd_.get());
    }
    free_requests_.reserve(kMaxRequests);
    for (Request& request : *requests_) {
        request.owner = this;
        request.go_through(shared ? export_.file().fd() : own_fd_.get(), own_fd_.get());
        free_requests_.push_back(&request);
    }
}

DisconnectReason Transmission::run() {
    while (state_ > State::closing) {
        now_ = Clock::now();
        // Here, where all that has come is known: what this thread has waited for in between is not
        // the client's time.
        disconnect_if_late();
        const bool blocked = process_received();
        start_waiting();
        end_write_turn();
        const std::size_t free_before = free_requests_.size();
        const Clock::time_point begun = std::exchange(now_, Clock::now());
        patience_.excuse(begun, now_);
        note_progress();
        send_replies();
        if (receiver_.ended() && !blocked) {
            step_down(State::draining, DisconnectReason::connection_lost);
        }
        if (session_.membership.shut_out()) {
            step_down(State::closing, DisconnectReason::shut_out);
        }
        if (thread_.stop_requested()) {
            step_down(State::draining, export_.gate().retired() ? DisconnectReason::export_retired
                                                                : DisconnectReason::server_stopped);
        }
        const bool idle = on_disk_ == 0 && waiting_.empty() && replies_.empty() && !blocked;
        if (state_ == State::draining && idle) {
            step_down(State::closing, reason_);
        }
        statistics_.in_flight.set(kMaxRequests - free_requests_.size());
        if (state_ == State::closing) {
            break;
        }
        receive_more();
        look_at_client();
        // What was sent has made room for requests that are already here.
        const bool go_on = blocked && free_requests_.size() > free_before;
        wait_for_work(!go_on);
    }
    close();
    return reason_;
}

void Transmission::send_replies() {
    switch (replies_.send()) {
        case ReplyQueue::Sent::all:
        case ReplyQueue::Sent::some:
            break;
        case ReplyQueue::Sent::socket_failed:
            step_down(State::closing, DisconnectReason::connection_lost);
            break;
        case ReplyQueue::Sent::file_failed:
            log_error("export '" + export_.name() + "': cannot read for " + peer_ + ": " +
                      error_text(errno) + "; it is disconnected, since its answer had begun");
            statistics_.failed(Error::io);
            step_down(State::closing, DisconnectReason::disk_failed);
            break;
    }
}

void Transmission::note_progress() noexcept {
    if (!receiver_.armed()) {
        patience_.received(now_);
    }
    if (!replies_.pending()) {
        patience_.sent(now_);
    }
}

void Transmission::look_at_client() noexcept {
    patience_.look({.in_request = incoming_ != nullptr || !receiver_.staged().empty(),
                    .receiving = receiver_.armed(),
                    .received_bytes = receiver_.received_bytes(),
                    .answers_waiting = replies_.pending(),
                    .others_wait = buffers_.leased_bytes() > 0 && memory_.wanted_by_others()},
                   now_);
}

void Transmission::disconnect_if_late() {
    note_progress();
    look_at_client();
    if (patience_.deadline() && *patience_.deadline() <= now_) {
        step_down(State::closing, patience_.reason());
    }
}

void Transmission::wait_for_work(bool wait) {
    if (memory_.wanted_by_others()) {
        buffers_.trim();
    }
    // After a while without requests nothing is kept for them.
    std::optional<Clock::time_point> until = patience_.deadline();
    if (free_requests_.size() < kMaxRequests) {
        busy_at_ = now_;
    } else if (buffers_.kept_bytes() > 0 && now_ >= busy_at_ + kIdleLimit) {
        buffers_.trim();
    } else if (buffers_.kept_bytes() > 0) {
        until = std::min(until.value_or(Clock::time_point::max()), busy_at_ + kIdleLimit);
    }
    std::chrono::milliseconds limit{0};  // none
    if (until) {
        limit = std::max(std::chrono::ceil<std::chrono::milliseconds>(*until - now_),
                         std::chrono::milliseconds(1));
    }
    ring_.run_once(wait, limit);
}

// The first reason is the true one; later ones follow from it.
void Transmission::step_down(State state, DisconnectReason reason) noexcept {
    if (state >= state_) {
        return;
    }
    if (state_ == State::active) {
        reason_ = reason;
    }
    state_ = state;
    receiver_.cancel();
    // Who said goodbye, and who is told that this ends, is owed what was received before. Who is
    // gone, or does what it must not, gets nothing that it has not been answered for.
    if (!owes_answers()) {
        drop_unanswered();
    }
}

bool Transmission::owes_answers() const noexcept {
    return reason_ == DisconnectReason::client_left || is_stopped();
}

bool Transmission::is_stopped() const noexcept {
    return reason_ == DisconnectReason::server_stopped ||
           reason_ == DisconnectReason::export_retired;
}

std::size_t Transmission::parked_bytes() const noexcept {
    std::size_t sum = 0;
    for (const Request* request : waiting_) {
        sum += request->buffer.capacity_bytes();
    }
    return sum;
}

void Transmission::drop_unanswered() noexcept {
    for (Request* request : std::exchange(waiting_, {})) {
        release(*request);
    }
}

void Transmission::close() {
    state_ = State::closing;
    drop_unanswered();
    receiver_.cancel();
    replies_.cancel();
    wake_.disarm();
    while (ring_.pending() > 0) {
        ring_.run_once(true);
    }
    if (incoming_ != nullptr) {
        release(*std::exchange(incoming_, nullptr));
    }
    if (next_.request != nullptr) {
        release(*std::exchange(next_, {}).request);
    }
    replies_.drop();
    statistics_.in_flight.set(0);
    assert(on_disk_ == 0 && free_requests_.size() == kMaxRequests);
    state_ = State::closed;
}

bool Transmission::process_received() {
    if (receiver_.armed()) {
        return false;
    }
    while (state_ == State::active || (state_ == State::draining && is_stopped())) {
        if (incoming_ != nullptr && !take_payload()) {
            return false;
        }
        switch (parse_request()) {
            case Parsed::request:
                break;
            case Parsed::incomplete:
                return false;
            case Parsed::no_room:
                return true;
        }
    }
    return false;
}

// False: more has to be received first.
bool Transmission::take_payload() {
    incoming_left_ -= receiver_.take_payload_count();
    const auto staged = receiver_.staged();
    const std::size_t count = std::min<std::uint64_t>(staged.size(), incoming_left_);
    if (incoming_refusal_ == Error::none && count > 0) {
        std::memcpy(incoming_->buffer.data() + (incoming_bytes_ - incoming_left_), staged.data(),
                    count);
    }
    receiver_.consume(count);
    incoming_left_ -= count;
    if (incoming_left_ > 0) {
        return false;
    }
    Request& request = *std::exchange(incoming_, nullptr);
    if (incoming_refusal_ == Error::none && request.command == Command::block_status) {
        incoming_refusal_ =
            block_status_.read_payload(request, {request.buffer.data(), incoming_bytes_});
        if (incoming_refusal_ == Error::none) {
            incoming_refusal_ = validate_block_status(request.range, rules_);
        }
    }
    if (incoming_refusal_ != Error::none) {
        reply_error(request, incoming_refusal_);
    } else {
        start(request);
    }
    return true;
}

void Transmission::receive_more() {
    if (state_ != State::active || receiver_.armed() || receiver_.ended() ||
        next_.request != nullptr) {
        return;
    }
    if (incoming_ == nullptr &&
        receiver_.staged().size() >= RequestHead::header_bytes(session_.replies)) {
        return;  // requests are waiting here for room
    }
    std::span<std::byte> payload;
    if (incoming_ != nullptr && incoming_refusal_ == Error::none) {
        payload = {incoming_->buffer.data() + (incoming_bytes_ - incoming_left_), incoming_left_};
    }
    receiver_.arm(payload);
}

Transmission::Parsed Transmission::parse_request() {
    if (next_.request != nullptr) {
        return begin_next();
    }
    const std::size_t header_bytes = RequestHead::header_bytes(session_.replies);
    if (receiver_.staged().size() < header_bytes) {
        return Parsed::incomplete;
    }
    const std::optional<RequestHead> head =
        RequestHead::decode(receiver_.staged().first(header_bytes), session_.replies);
    // No client has a reason for such a payload, and nobody would want to wait for its end.
    if (!head || (head->has_payload && head->length > kMaxSkippedPayloadBytes)) {
        receiver_.consume(receiver_.staged().size());
        step_down(State::draining, DisconnectReason::protocol_error);
        return Parsed::incomplete;
    }
    if (head->command == Command::disconnect) {
        receiver_.consume(receiver_.staged().size());
        step_down(State::draining, DisconnectReason::client_left);
        return Parsed::incomplete;
    }
    if (free_requests_.empty()) {
        return Parsed::no_room;
    }
    receiver_.consume(header_bytes);
    if (head->command != Command::write) {
        end_write_turn();
    }
    Request& request = *free_requests_.back();
    free_requests_.pop_back();
    request.begin(*head, now_);
    next_ = {.request = &request,
             .error = validate(*head, rules_),
             .payload_bytes = head->has_payload ? head->length : 0};
    if (next_.error == Error::none && request.command == Command::read) {
        plan_read(request);
    }
    return begin_next();
}

// How much of it the request needs from its first step on.
std::size_t Transmission::memory_for(const Request& request) noexcept {
    switch (request.command) {
        case Command::read:
            return request.from_file ? 0 : request.range.length;
        case Command::write:
            return request.range.length;
        case Command::block_status:
            return BlockStatus::kAnswerBytes;
        default:
            return 0;
    }
}

// The request at the head of the line, once there is memory for it.
Transmission::Parsed Transmission::begin_next() {
    Request& request = *next_.request;
    Error error = next_.error;
    const std::size_t memory_bytes = error == Error::none ? memory_for(request) : 0;
    // The gate's opening wakes this thread.
    if (request.command == Command::write && export_.gate().held() &&
        parked_bytes() + memory_bytes > kMaxParkedBytes) {
        return Parsed::no_room;
    }
    if (memory_bytes > 0) {
        request.buffer = buffers_.lease(memory_bytes);
        if (!request.buffer && (buffers_.leased_bytes() > 0 || memory_.waits())) {
            return Parsed::no_room;
        }
        if (!request.buffer) {
            error = Error::no_memory;
        }
    }
    const std::uint64_t payload_bytes = std::exchange(next_, {}).payload_bytes;
    busy_at_ = now_;
    statistics_.arrived(request.command);
    if (payload_bytes > 0) {
        incoming_ = &request;
        incoming_bytes_ = payload_bytes;
        incoming_left_ = payload_bytes;
        incoming_refusal_ = error;
    } else if (error != Error::none) {
        reply_error(request, error);
    } else {
        start(request);
    }
    return Parsed::request;
}

void Transmission::start(Request& request) {
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
            if (!waiting_.empty() || !enter_and_write(request)) {
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
            if (const Error error = block_status_.answer(request); error != Error::none) {
                reply_error(request, error);
            }
            break;
        case Command::disconnect:
            break;
    }
}

// Which parts of it are holes, and whether the kernel can send the rest from where it is.
void Transmission::plan_read(Request& request) {
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
            last ? FileExtent{left, false} : file.next_extent(own_fd_.get(), left);
        request.extents[request.extent_count++] = extent;
        left = left.after(extent.range.length);
    }
}

void Transmission::continue_read(Request& request) {
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
bool Transmission::needs_disk_alone(const Request& request) const noexcept {
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

// False: the gate is shut, or earlier writes of this connection have to come back first.
bool Transmission::enter_and_write(Request& request) {
    WriteGate& gate = export_.gate();
    const bool alone = needs_disk_alone(request);
    if (alone && lane_.in_flight.load(std::memory_order_relaxed) > 0) {
        return false;
    }
    switch (alone ? gate.enter_alone(lane_) : gate.enter(lane_)) {
        case WriteGate::Entry::shut:
            return false;
        case WriteGate::Entry::retired:
            reply_error(request, Error::shutdown);
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

void Transmission::start_waiting() {
    while (!waiting_.empty() && enter_and_write(*waiting_.front())) {
        waiting_.pop_front();
    }
}

void Transmission::write(Request& request) {
    ++on_disk_;
    DiskFile& file = export_.file();
    const bool fua = request.has(wire::kFua);
    switch (request.command) {
        case Command::write:
            if (!write_turn_) {
                write_turn_ = file.take_write_turn();
            }
            request.write(ring_, file, request.range, request.buffer.data(), fua,
                          request.buffer.ring_index());
            break;
        case Command::trim:
            request.trim(ring_, file, request.range, fua);
            break;
        default:
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
bool Transmission::write_alone(Request& request) noexcept {
    const DiskFile& file = export_.file();
    int error = ENOTSUP;
    if (request.command == Command::write) {
        error = file.write_unaligned(request.range, request.buffer.data());
    } else if (!request.has(wire::kFastZero)) {
        const Range whole = whole_units(request.range, file.request_alignment());
        error = file.write_unaligned(Range::from_to(request.range.offset, whole.offset), nullptr);
        if (error == 0) {
            error = file.write_unaligned(Range::from_to(whole.end(), request.range.end()), nullptr);
        }
        request.ends_are_zero = error == 0;
    }
    const bool goes_on =
        request.ends_are_zero && !whole_units(request.range, file.request_alignment()).empty();
    if (error == 0 && !goes_on && request.has(wire::kFua) && ::fdatasync(own_fd_.get()) < 0) {
        error = errno;
        export_.note_write_back_error(error);
    }
    export_.trackers().mark(request.range);
    export_.gate().leave_alone(lane_);
    if (goes_on) {
        return false;
    }
    finish(request, error);
    return true;
}

// The disk is done with a request or with a part of it.
void Transmission::disk_finished(Request& request, int error) noexcept {
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

void Transmission::finish(Request& request, int error) noexcept {
    if (request.command == Command::flush && error == 0) {
        error = export_.write_back_error();
    }
    if (error != 0) {
        log_failure(request, error);
        reply_error(request, wire::error_from_errno(error));
    } else if (request.command == Command::read) {
        statistics_.succeeded(request.command, request.range.length);
        answer_.read(request);
    } else {
        statistics_.succeeded(request.command, request.range.length);
        answer_.done(request);
    }
}

void Transmission::read_ahead(Request& request) {
    // Advice: the kernel may do it, now or later, or not at all.
    ::posix_fadvise(export_.file().fd(), static_cast<off_t>(request.range.offset),
                    static_cast<off_t>(request.range.length), POSIX_FADV_WILLNEED);
    answer_.done(request);
}

void Transmission::reply_error(Request& request, Error error) {
    statistics_.failed(error);
    answer_.error(request, error);
}

void Transmission::log_failure(const Request& request, int error) {
    if (error == ENOTSUP || logged_failures_ > kMaxLoggedFailures) {
        return;
    }
    const char* then = ++logged_failures_ > kMaxLoggedFailures
                           ? "; further failures of this connection are not logged"
                           : "";
    const char* verbs[] = {"read", "write", "", "flush", "trim", "cache", "write zeroes", ""};
    log_warning("export '" + export_.name() + "': cannot " +
                verbs[static_cast<std::size_t>(request.command)] + " " +
                std::to_string(request.range.length) + " bytes at offset " +
                std::to_string(request.range.offset) + " for " + peer_ + ": " + error_text(error) +
                then);
}

void Transmission::replied(Request& request) noexcept {
    statistics_.answered(request.command, now_ - request.arrived);
    release(request);
}

void Transmission::dropped(Request& request) noexcept {
    release(request);
}

void Transmission::end_write_turn() noexcept {
    write_turn_ = {};
}

void Transmission::release(Request& request) noexcept {
    request.buffer.reset();
    free_requests_.push_back(&request);
}

}  // namespace nbdm
