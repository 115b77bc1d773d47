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
// A client that holds memory for which others wait has to move on within this.
constexpr std::chrono::seconds kShortageLimit{10};
// A connection's failed requests that are logged one by one.
constexpr int kMaxLoggedFailures = 20;

}  // namespace

Transmission::Transmission(IoThread& thread, int fd, Session session, Surroundings surroundings)
    : thread_(thread),
      session_(std::move(session)),
      export_(*session_.served),
      peer_(std::move(surroundings.peer)),
      request_timeout_(surroundings.request_timeout),
      memory_(surroundings.memory),
      statistics_(surroundings.statistics),
      rules_{.size_bytes = export_.size_bytes(),
             .read_only = session_.read_only,
             .replies = session_.replies,
             .block_status = !session_.contexts.empty()},
      own_fd_(export_.file().open_again()),
      ring_(kRingEntries),
      buffers_(kMaxBufferBytes, &memory_, export_.file().direct() ? &ring_ : nullptr),
      wake_(ring_, thread),
      receiver_(ring_, fd),
      replies_(ring_, fd, own_fd_.get()),
      answer_(replies_, session_.replies),
      block_status_(session_, own_fd_.get(), answer_),
      requests_(std::make_unique<std::array<Request, kMaxRequests>>()),
      lane_(export_.gate().attach(thread)),
      write_turn_(export_.file().buffered_writes, std::defer_lock) {
    memory_.join(thread_);
    ring_.keep_files(std::array{fd, own_fd_.get()});
    free_requests_.reserve(kMaxRequests);
    for (Request& request : *requests_) {
        request.owner = this;
        request.go_through(own_fd_.get());
        free_requests_.push_back(&request);
    }
}

Transmission::~Transmission() {
    memory_.leave(thread_);
    export_.gate().detach(lane_);
}

DisconnectReason Transmission::run() {
    while (state_ > State::closing) {
        now_ = Clock::now();
        if (!receiver_.armed()) {
            received_at_ = now_;
        }
        const bool blocked = process_received();
        start_waiting();
        if (write_turn_) {
            write_turn_.unlock();
        }
        const std::size_t free_before = free_requests_.size();
        now_ = Clock::now();
        if (!replies_.pending()) {
            sent_at_ = now_;
        }
        if (!replies_.send()) {
            step_down(State::closing, DisconnectReason::connection_lost);
            break;
        }
        if (receiver_.ended() && !blocked) {
            step_down(State::draining, DisconnectReason::connection_lost);
        }
        if (session_.membership.shut_out()) {
            step_down(State::closing, DisconnectReason::shut_out);
            break;
        }
        if (thread_.stop_requested()) {
            step_down(State::draining, export_.gate().retired() ? DisconnectReason::export_retired
                                                                : DisconnectReason::server_stopped);
        }
        const bool idle = on_disk_ == 0 && waiting_.empty() && replies_.empty();
        if (state_ == State::draining && idle) {
            step_down(State::closing, reason_);
            break;
        }
        statistics_.in_flight.set(kMaxRequests - free_requests_.size());
        receive_more();
        disconnect_if_late();
        if (state_ == State::closing) {
            break;
        }
        // What was sent has made room for requests that are already here.
        const bool go_on = blocked && free_requests_.size() > free_before;
        wait_for_work(!go_on);
    }
    close();
    return reason_;
}

// Half a request, and answers that nobody takes, hold a slot and memory.
void Transmission::disconnect_if_late() {
    deadline_.reset();
    if (!memory_.wanted() || buffers_.leased_bytes() == 0) {
        wanted_since_.reset();
    } else if (!wanted_since_) {
        wanted_since_ = now_;
    }
    DisconnectReason reason{};
    const auto expect = [&](Clock::time_point by, DisconnectReason why) {
        if (!deadline_ || by < *deadline_) {
            deadline_ = by;
            reason = why;
        }
    };
    if (receiver_.armed() && (incoming_ != nullptr || !receiver_.staged().empty())) {
        expect(received_at_ + request_timeout_, DisconnectReason::request_time_out);
        if (wanted_since_ && incoming_ != nullptr) {
            expect(std::max(received_at_, *wanted_since_) + kShortageLimit,
                   DisconnectReason::request_time_out);
        }
    }
    if (wanted_since_ && replies_.pending()) {
        expect(std::max(sent_at_, *wanted_since_) + kShortageLimit,
               DisconnectReason::answers_not_taken);
    }
    if (deadline_ && *deadline_ <= now_) {
        step_down(State::closing, reason);
    }
}

void Transmission::wait_for_work(bool wait) {
    if (memory_.wanted()) {
        buffers_.trim();
    }
    std::chrono::milliseconds limit{0};  // none
    if (deadline_) {
        limit = std::chrono::ceil<std::chrono::milliseconds>(*deadline_ - now_);
    }
    // After a while without requests nothing is kept for them.
    const bool idle = free_requests_.size() == kMaxRequests && buffers_.kept_bytes() > 0;
    if (idle) {
        limit = deadline_ ? std::min(limit, kIdleLimit) : kIdleLimit;
    }
    if (!ring_.run_once(wait, limit) && wait && idle) {
        buffers_.trim();
    }
}

// Nothing: there is none at the moment, and this thread will be woken, by a request of its own that
// completes or by the budget.
Buffer Transmission::lease(std::size_t bytes) {
    Buffer buffer = buffers_.lease(bytes);
    if (!buffer && buffers_.budget_refused()) {
        memory_.set_waiting(thread_, true);
        waits_for_memory_ = true;
        // What came back before it was known that somebody waits wakes nobody.
        buffer = buffers_.lease(bytes);
    }
    if (buffer && std::exchange(waits_for_memory_, false)) {
        memory_.set_waiting(thread_, false);
    }
    return buffer;
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
    // A client that said goodbye is owed what it asked for before; one that is gone gets nothing
    // it has not been answered for, and a stopping server does not wait for a gate to open.
    if (reason_ != DisconnectReason::client_left) {
        drop_unanswered();
    }
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
    replies_.drop();
    assert(on_disk_ == 0 && free_requests_.size() == kMaxRequests);
    state_ = State::closed;
}

bool Transmission::process_received() {
    if (receiver_.armed()) {
        return false;
    }
    while (state_ == State::active) {
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
    if (state_ != State::active || receiver_.armed() || receiver_.ended()) {
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
    if (free_requests_.empty()) {
        return Parsed::no_room;
    }
    return accept_request(*head);
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

Transmission::Parsed Transmission::accept_request(const RequestHead& head) {
    Error error = validate(head, rules_);
    Request& request = *free_requests_.back();  // taken when there is memory for it
    request.begin(head, now_);
    if (error == Error::none && head.command == Command::read) {
        plan_read(request);
    }
    const std::size_t memory_bytes = error == Error::none ? memory_for(request) : 0;
    if (memory_bytes > 0) {
        request.buffer = lease(memory_bytes);
        if (!request.buffer && (buffers_.leased_bytes() > 0 || buffers_.budget_refused())) {
            return Parsed::no_room;
        }
        if (!request.buffer) {
            error = Error::no_memory;
        }
    }
    receiver_.consume(RequestHead::header_bytes(session_.replies));
    if (head.command == Command::disconnect) {
        step_down(State::draining, DisconnectReason::client_left);
        return Parsed::incomplete;
    }
    free_requests_.pop_back();
    statistics_.arrived(head.command);
    if (head.has_payload) {
        incoming_ = &request;
        incoming_bytes_ = head.length;
        incoming_left_ = head.length;
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
        request.read(ring_, file, range, into, request.buffer.slot());
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
    return request.command == Command::write ||
           (request.command == Command::write_zeroes && file.is_block_device());
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
    if (alone) {
        write_alone(request);
    } else {
        write(request);
    }
    return true;
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
            if (!file.direct() && !write_turn_) {
                write_turn_.lock();
            }
            request.write(ring_, file, request.range, request.buffer.data(), fua,
                          request.buffer.slot());
            break;
        case Command::trim:
            request.trim(ring_, file, request.range, fua);
            break;
        default:
            request.zero(ring_, file, request.range,
                         {.may_punch = !request.has(wire::kNoHole),
                          .fast_only = request.has(wire::kFastZero)},
                         fua);
            break;
    }
}

void Transmission::write_alone(Request& request) noexcept {
    const DiskFile& file = export_.file();
    int error = ENOTSUP;
    if (!request.has(wire::kFastZero)) {
        error = file.write_unaligned(request.range, request.buffer.data());
        if (error == 0 && request.has(wire::kFua) && ::fdatasync(own_fd_.get()) < 0) {
            error = errno;
            export_.note_write_back_error(error);
        }
    }
    export_.trackers().mark(request.range);
    export_.gate().leave_alone(lane_);
    finish(request, error);
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

void Transmission::release(Request& request) noexcept {
    request.buffer.reset();
    free_requests_.push_back(&request);
}

}  // namespace nbdm
