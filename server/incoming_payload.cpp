// SPDX-License-Identifier: Apache-2.0
#include "server/incoming_payload.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace nbdm {

using wire::Error;

void IncomingPayload::begin(Request& request, std::uint64_t bytes, Error refusal) noexcept {
    assert(!expected() && bytes > 0);
    request_ = &request;
    bytes_ = bytes;
    left_ = bytes;
    refusal_ = refusal;
}

std::span<std::byte> IncomingPayload::room() const noexcept {
    if (!expected() || refusal_ != Error::none) {
        return {};
    }
    return {request_->buffer.data() + (bytes_ - left_), left_};
}

bool IncomingPayload::take(Receiver& receiver) noexcept {
    left_ -= receiver.take_payload_count();
    const auto staged = receiver.staged();
    const std::size_t count = std::min<std::uint64_t>(staged.size(), left_);
    if (refusal_ == Error::none && count > 0) {
        std::memcpy(room().data(), staged.data(), count);
    }
    receiver.consume(count);
    left_ -= count;
    return left_ == 0;
}

std::span<const std::byte> IncomingPayload::data() const noexcept {
    if (refusal_ != Error::none) {
        return {};
    }
    return {request_->buffer.data(), bytes_};
}

}  // namespace nbdm
