// SPDX-License-Identifier: Apache-2.0
#include "server/transmission.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
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
// A connection without requests for this long gives its buffers back: long against the pauses of
// a client that is at work, short against an idle night.
constexpr std::chrono::milliseconds kIdleLimit{1000};
// A client that cannot be received from is looked at this often: is it still there?
constexpr std::chrono::milliseconds kGoneInterval{1000};

}  // namespace

Transmission::Transmission(IoThread& thread, int fd, Session session, Surroundings surroundings)
    : thread_(thread),
      session_(std::move(session)),
      export_(*session_.served),
      peer_(std::move(surroundings.peer)),
      statistics_(surroundings.statistics),
      rules_{.size_bytes = session_.size_bytes,
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
      executor_(thread, ring_, own_fd_.get(), session_, answer_,
                {.peer = peer_, .statistics = statistics_}),
      requests_(std::make_unique<std::array<Request, kMaxRequests>>()),
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
        request.executor = &executor_;
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
        const Parsed parsed = process_received();
        const bool blocked = parsed != Parsed::incomplete;
        const std::size_t free_before = free_requests_.size();
        start_waiting(parsed == Parsed::no_room);
        executor_.end_write_turn();
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
        const bool idle = executor_.idle() && replies_.empty() && !blocked;
        if (state_ == State::draining && idle) {
            step_down(State::closing, reason_);
        }
        statistics_.in_flight.set(kMaxRequests - free_requests_.size());
        if (state_ == State::closing) {
            break;
        }
        if (parsed != Parsed::request) {  // else what is staged comes first
            receive_more();
        }
        look_at_client();
        // What was sent has made room for requests that are already here.
        const bool go_on =
            parsed == Parsed::request || (blocked && free_requests_.size() > free_before);
        wait_for_work(!go_on);
    }
    close();
    return reason_;
}

// A client that is gone may be back on another connection, and its old writes must not be done
// after its new ones. What has come from it is read first: it may end in a goodbye. Where there is
// no room to read it, the writes are dropped.
void Transmission::start_waiting(bool blocked) {
    if (!has_lost_client()) {
        executor_.start_waiting(now_);
    } else if (blocked || receiver_.ended()) {
        step_down(State::draining, DisconnectReason::connection_lost);
    }
}

// Asked only where something waits that would be done late. What a hold or a throttle keeps waiting
// may be late by any time, and goes with a client that has nothing more to say. What waits for
// memory or for other writes goes with one that takes no answers either, or whose end was read.
bool Transmission::has_lost_client() const noexcept {
    if (state_ != State::active) {
        return false;
    }
    if (keeps_writes_waiting()) {
        return receiver_.peer_closed();
    }
    return (next_.request != nullptr || executor_.waits_for_writes()) &&
           (receiver_.ended() || receiver_.peer_gone());
}

void Transmission::send_replies() {
    switch (replies_.send()) {
        case ReplyQueue::Sent::taken:
            break;
        case ReplyQueue::Sent::socket_failed:
            give_up_answering(DisconnectReason::connection_lost);
            break;
        case ReplyQueue::Sent::file_failed:
            log_error(export_.quoted() + ": cannot read for " + peer_ + ": " + error_text(errno) +
                      "; it is disconnected, since its answer had begun");
            statistics_.failed(Error::io);
            give_up_answering(DisconnectReason::disk_failed);
            break;
    }
}

// Who has said goodbye need not stay for the answers: what came before it is done all the same.
void Transmission::give_up_answering(DisconnectReason reason) {
    if (state_ == State::draining && reason_ == DisconnectReason::client_left) {
        replies_.cut_off();
    } else {
        step_down(State::closing, reason);
    }
}

void Transmission::look_at_client() noexcept {
    patience_.look({.in_request = incoming_.expected() || !receiver_.staged().empty(),
                    .receiving = receiver_.armed(),
                    .received_bytes = receiver_.received_bytes(),
                    .answers_waiting = replies_.pending(),
                    .untaken_bytes = replies_.pending() ? replies_.untaken_bytes() : 0,
                    .others_wait = buffers_.leased_bytes() > 0 && memory_.wanted_by_others()},
                   now_);
}

void Transmission::disconnect_if_late() {
    note_progress();
    look_at_client();
    if (patience_.deadline() && *patience_.deadline() <= now_) {
        give_up_answering(patience_.reason());
    }
}

void Transmission::wait_for_work(bool wait) {
    if (memory_.wanted_by_others()) {
        buffers_.trim();
    }
    std::optional<Clock::time_point> until = patience_.deadline();
    const auto wake_at = [&](Clock::time_point at) { until = std::min(until.value_or(at), at); };
    // After a while without requests nothing is kept for them.
    if (free_requests_.size() < kMaxRequests) {
        busy_at_ = now_;
    } else if (buffers_.kept_bytes() > 0 && now_ >= busy_at_ + kIdleLimit) {
        buffers_.trim();
    } else if (buffers_.kept_bytes() > 0) {
        wake_at(busy_at_ + kIdleLimit);
    }
    if (const std::optional<Clock::time_point> next = executor_.next_start()) {
        wake_at(*next);
    }
    if ((keeps_writes_waiting() || next_.request != nullptr) && !receiver_.armed()) {
        wake_at(now_ + kGoneInterval);
    }
    using std::chrono::nanoseconds;
    constexpr nanoseconds kNoLimit{0};
    ring_.run_once(wait, until ? std::max<nanoseconds>(*until - now_, nanoseconds(1)) : kNoLimit);
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
    if (reason_ != DisconnectReason::client_left && !is_stopped()) {
        drop_unanswered();
    }
}

void Transmission::drop_unanswered() noexcept {
    memory_.stop_waiting();
    while (Request* request = executor_.take_waiting()) {
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
    if (Request* request = incoming_.finish()) {
        release(*request);
    }
    if (next_.request != nullptr) {
        release(*std::exchange(next_, {}).request);
    }
    replies_.drop();
    statistics_.in_flight.set(0);
    assert(executor_.idle() && free_requests_.size() == kMaxRequests);
    state_ = State::closed;
}

Transmission::Parsed Transmission::process_received() {
    while (!receiver_.armed() &&
           (state_ == State::active || (state_ == State::draining && is_stopped()))) {
        if (incoming_.expected() && !take_payload()) {
            return Parsed::incomplete;
        }
        if (executor_.take_long_step()) {
            return Parsed::request;
        }
        if (const Parsed parsed = parse_request(); parsed != Parsed::request) {
            return parsed;
        }
    }
    return Parsed::incomplete;
}

// False: more has to be received first.
bool Transmission::take_payload() {
    if (!incoming_.take(receiver_)) {
        return false;
    }
    Error refusal = incoming_.refusal();
    const auto payload = incoming_.data();
    Request& request = *incoming_.finish();
    if (refusal == Error::none && request.command == Command::block_status) {
        refusal = executor_.read_payload(request, payload);
        if (refusal == Error::none) {
            refusal = validate_block_status(request.range, rules_);
        }
    }
    if (refusal != Error::none) {
        executor_.refuse(request, refusal);
    } else {
        executor_.start(request);
    }
    return true;
}

void Transmission::receive_more() {
    if (state_ != State::active || receiver_.armed() || receiver_.ended() ||
        next_.request != nullptr) {
        return;
    }
    if (!incoming_.expected() &&
        receiver_.staged().size() >= RequestHead::header_bytes(session_.replies)) {
        return;  // requests are waiting here for room
    }
    receiver_.arm(incoming_.room());
}

Transmission::Parsed Transmission::parse_request() {
    if (next_.request != nullptr) {
        return has_lost_client() ? Parsed::no_room : begin_next();
    }
    const std::size_t header_bytes = RequestHead::header_bytes(session_.replies);
    if (receiver_.staged().size() < header_bytes) {
        return Parsed::incomplete;
    }
    const std::optional<RequestHead> head =
        RequestHead::decode(receiver_.staged().first(header_bytes), session_.replies);
    // No client has a reason for such a payload, and nobody would want to wait for its end.
    const bool wrong = !head || (head->has_payload && head->length > kMaxSkippedPayloadBytes);
    if (wrong || head->command == Command::disconnect) {
        receiver_.consume(receiver_.staged().size());
        step_down(State::draining,
                  wrong ? DisconnectReason::protocol_error : DisconnectReason::client_left);
        return Parsed::incomplete;
    }
    if (free_requests_.empty()) {
        return Parsed::no_room;
    }
    receiver_.consume(header_bytes);
    if (head->command != Command::write) {
        executor_.end_write_turn();
    }
    Request& request = *free_requests_.back();
    free_requests_.pop_back();
    request.begin(*head, now_);
    next_ = {.request = &request,
             .error = validate(*head, rules_),
             .payload_bytes = head->has_payload ? head->length : 0};
    if (next_.error == Error::none) {
        executor_.plan(request);
    }
    return begin_next();
}

// The request at the head of the line, once there is memory for it.
Transmission::Parsed Transmission::begin_next() {
    Request& request = *next_.request;
    Error error = next_.error;
    const std::size_t memory_bytes = error == Error::none ? executor_.memory_for(request) : 0;
    // The gate's opening wakes this thread. Until then it stands in nobody's way.
    if (request.command == Command::write &&
        executor_.is_parking_full(memory_bytes, memory_.parking_bytes())) {
        next_.kept_waiting = true;
        export_.gate().note_kept_waiting();
        memory_.stop_waiting();
        return Parsed::no_room;
    }
    next_.kept_waiting = false;
    if (error == Error::none && write_staged(request)) {
        return Parsed::request;
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
        incoming_.begin(request, payload_bytes, error);
    } else if (error != Error::none) {
        executor_.refuse(request, error);
    } else {
        executor_.start(request);
    }
    return Parsed::request;
}

// Where all of its payload has been received with its header.
bool Transmission::write_staged(Request& request) {
    const std::uint64_t bytes = next_.payload_bytes;
    if (request.command != Command::write || receiver_.staged().size() < bytes ||
        !executor_.write_staged(request, receiver_.staged().first(bytes))) {
        return false;
    }
    memory_.stop_waiting();  // for the buffer that it would have needed before the gate was opened
    receiver_.consume(bytes);
    next_ = {};
    busy_at_ = now_;
    statistics_.arrived(request.command);
    return true;
}

void Transmission::replied(Request& request) noexcept {
    statistics_.answered(request.command, now_ - request.arrived);
    release(request);
}

}  // namespace nbdm
