// SPDX-License-Identifier: Apache-2.0
#include "server/receiver.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <poll.h>
#include <utility>

namespace nbdm {

Receiver::Receiver(Ring& ring, int fd) : ring_(ring), fd_(fd), stage_(new std::byte[kStageBytes]) {}

void Receiver::consume(std::size_t bytes) noexcept {
    assert(bytes <= end_ - begin_);
    begin_ += bytes;
    if (begin_ == end_) {
        begin_ = end_ = 0;
    }
}

void Receiver::arm(std::span<std::byte> payload) {
    assert(!armed() && !ended_);
    if (begin_ > 0) {
        // Less than a request is left: a few bytes of a header.
        std::memmove(stage_.get(), stage_.get() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
    std::size_t room = kStageBytes - end_;
    if (payload.size() >= kStageBytes) {
        room = std::min(room, kBehindPayloadBytes);
    }
    parts_[0] = {payload.data(), payload.size()};
    parts_[1] = {stage_.get() + end_, room};
    message_ = {};
    message_.msg_iov = payload.empty() ? &parts_[1] : parts_.data();
    message_.msg_iovlen = payload.empty() ? 1 : 2;
    payload_wanted_ = payload.size();
    ring_.receive(*this, fd_, message_, 0);
}

bool Receiver::peer_closed() const noexcept {
    pollfd asked{.fd = fd_, .events = POLLRDHUP, .revents = 0};
    return ::poll(&asked, 1, 0) > 0;
}

bool Receiver::peer_gone() const noexcept {
    pollfd asked{.fd = fd_, .events = 0, .revents = 0};
    return ::poll(&asked, 1, 0) > 0;
}

std::size_t Receiver::take_payload_count() noexcept {
    return std::exchange(payload_count_, 0);
}

void Receiver::completed(int result) noexcept {
    if (std::exchange(polling_, false) || result == -EINTR) {
        return;  // armed again by the caller
    }
    if (result == -EAGAIN) {
        // The socket does not block; kernels differ in whether the ring waits all the same.
        polling_ = true;
        ring_.poll(*this, fd_, POLLIN);
        return;
    }
    if (result <= 0) {
        ended_ = true;
        return;
    }
    const std::size_t count = static_cast<std::size_t>(result);
    received_bytes_ += count;
    payload_count_ = std::min(count, payload_wanted_);
    end_ += count - payload_count_;
}

}  // namespace nbdm
