// SPDX-License-Identifier: Apache-2.0
#include "server/request.h"

#include "server/executor.h"
#include "server/request_limits.h"

namespace nbdm {

using wire::Command;
using wire::Error;

void Request::begin(const RequestHead& head, std::chrono::steady_clock::time_point now) noexcept {
    command = head.command;
    flags = head.flags;
    cookie = head.cookie;
    range = {head.offset, head.length};
    arrived = now;
    extent_count = 0;
    next_extent = 0;
    from_file = false;
    ends_are_zero = false;
    contexts.set();
}

void Request::finished(int error) noexcept {
    executor->disk_finished(*this, error);
}

namespace {

template <typename Header>
std::optional<RequestHead> decode_as(std::span<const std::byte> bytes,
                                     std::uint32_t magic) noexcept {
    const auto header = wire::load<Header>(bytes);
    if (header.magic != magic) {
        return std::nullopt;
    }
    return RequestHead{.command = static_cast<Command>(std::uint16_t{header.command}),
                       .flags = header.flags,
                       .cookie = header.cookie,
                       .offset = header.offset,
                       .length = header.length};
}

// The flags that a command may carry; FUA is allowed, and means nothing, where nothing is written.
std::uint16_t allowed_flags(Command command, const RequestRules& rules) noexcept {
    switch (command) {
        case Command::read:
            return rules.replies == ReplyStyle::simple ? wire::kFua : wire::kFua | wire::kDf;
        case Command::write_zeroes:
            return wire::kFua | wire::kNoHole | wire::kFastZero;
        case Command::block_status:
            return wire::kFua | wire::kReqOne;
        default:
            return wire::kFua;
    }
}

}  // namespace

std::optional<RequestHead> RequestHead::decode(std::span<const std::byte> header,
                                               ReplyStyle style) noexcept {
    if (style != ReplyStyle::extended) {
        auto head = decode_as<wire::RequestHeader>(header, wire::kRequestMagic);
        if (head) {
            head->has_payload = head->command == Command::write;
        }
        return head;
    }
    auto head = decode_as<wire::ExtendedRequestHeader>(header, wire::kExtendedRequestMagic);
    if (head) {
        head->has_payload = (head->flags & wire::kPayloadLength) != 0;
    }
    return head;
}

Error validate(const RequestHead& head, const RequestRules& rules) noexcept {
    const Command command = head.command;
    const std::uint64_t length = head.length;
    std::uint16_t flags = head.flags;
    if (rules.replies == ReplyStyle::extended) {
        const bool may_have_payload = command == Command::write || command == Command::block_status;
        const bool must_have_payload = command == Command::write;
        if (head.has_payload ? !may_have_payload : must_have_payload) {
            return Error::invalid;
        }
        flags &= static_cast<std::uint16_t>(~wire::kPayloadLength);
    }
    if ((flags & ~allowed_flags(command, rules)) != 0) {
        return Error::invalid;
    }
    const bool fits = Range::fits(head.offset, length, rules.size_bytes);
    switch (command) {
        case Command::read: {
            if (!fits || length == 0) {
                return Error::invalid;
            }
            // In one chunk no more than was advertised.
            const std::uint64_t most =
                (flags & wire::kDf) != 0 ? kMaxPayloadBytes : kMaxAcceptedPayloadBytes;
            return length > most ? Error::overflow : Error::none;
        }
        case Command::write:
        case Command::trim:
        case Command::write_zeroes:
            if (rules.read_only) {
                return Error::perm;
            }
            if (length == 0) {
                return Error::invalid;
            }
            if (!fits) {
                return command == Command::trim ? Error::invalid : Error::no_space;
            }
            return command == Command::write && length > kMaxAcceptedPayloadBytes ? Error::invalid
                                                                                  : Error::none;
        case Command::flush:
            return head.offset == 0 && length == 0 ? Error::none : Error::invalid;
        case Command::cache:
            return fits && length > 0 ? Error::none : Error::invalid;
        case Command::block_status:
            if (head.has_payload) {
                const bool right = length > sizeof(wire::BlockStatusPayload) &&
                                   length <= kMaxBlockStatusPayloadBytes &&
                                   length % sizeof(wire::Big32) == 0;
                return rules.block_status && right ? Error::none : Error::invalid;
            }
            return validate_block_status({head.offset, length}, rules);
        case Command::disconnect:
            return Error::none;
    }
    return Error::invalid;
}

Error validate_block_status(Range range, const RequestRules& rules) noexcept {
    const bool fits = Range::fits(range.offset, range.length, rules.size_bytes);
    return rules.block_status && fits && !range.empty() ? Error::none : Error::invalid;
}

}  // namespace nbdm
