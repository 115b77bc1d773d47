// SPDX-License-Identifier: Apache-2.0
#include "server/request.h"

#include "server/request_limits.h"
#include "server/transmission.h"

namespace nbdm {

using wire::Command;
using wire::Error;

void Request::finished(int error) noexcept {
    owner->disk_finished(*this, error);
}

namespace {

// The flags that a command may carry; FUA is allowed, and means nothing, where nothing is written.
std::uint16_t allowed_flags(Command command, const RequestRules& rules) noexcept {
    switch (command) {
        case Command::read:
            return rules.structured_replies ? wire::kFua | wire::kDf : wire::kFua;
        case Command::write_zeroes:
            return wire::kFua | wire::kNoHole | wire::kFastZero;
        case Command::block_status:
            return wire::kFua | wire::kReqOne;
        default:
            return wire::kFua;
    }
}

}  // namespace

Error validate(const wire::RequestHeader& header, const RequestRules& rules) noexcept {
    const auto command = static_cast<Command>(std::uint16_t{header.command});
    const std::uint16_t flags = header.flags;
    const std::uint32_t length = header.length;
    if ((flags & ~allowed_flags(command, rules)) != 0) {
        return Error::invalid;
    }
    const bool fits = Range::fits(header.offset, length, rules.size_bytes);
    switch (command) {
        case Command::read:
            if (length > kMaxAcceptedPayloadBytes) {
                return Error::overflow;
            }
            return fits && length > 0 ? Error::none : Error::invalid;
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
            return command == Command::write && length > kMaxAcceptedPayloadBytes ? Error::overflow
                                                                                  : Error::none;
        case Command::flush:
            return header.offset == 0 && length == 0 ? Error::none : Error::invalid;
        case Command::cache:
            return fits && length > 0 ? Error::none : Error::invalid;
        case Command::block_status:
            return rules.block_status && fits && length > 0 ? Error::none : Error::invalid;
        case Command::disconnect:
            return Error::none;
    }
    return Error::invalid;
}

}  // namespace nbdm
