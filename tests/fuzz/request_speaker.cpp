// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/request_speaker.h"

#include <algorithm>

#include "server/request_limits.h"

namespace nbdm::fuzz {

using wire::Big32;
using wire::Big64;
using wire::Command;

std::uint64_t RequestSpeaker::edge() {
    const std::uint64_t disk_bytes = manners_.disk_bytes;
    const std::array<std::uint64_t, 12> edges = {0,
                                                 1,
                                                 511,
                                                 512,
                                                 4096,
                                                 65536,
                                                 disk_bytes - 1,
                                                 disk_bytes,
                                                 disk_bytes + 1,
                                                 std::uint64_t{64} << 20,
                                                 UINT32_MAX,
                                                 UINT64_MAX};
    return one_in(6) ? one_of(edges) : pick(disk_bytes);
}

std::uint64_t RequestSpeaker::some_length() {
    const std::uint64_t kind = manners_.greedy ? pick(16) : 0;
    if (kind < 10) {
        return pick(70'000);
    }
    if (kind < 15) {
        return pick(kind < 13 ? 512 << 10 : 4 << 20);
    }
    // With what takes as much memory as the largest request.
    return manners_.disk_bytes - pick(1 << 20);
}

// Not always one that fits: offset and length are numbers like any other.
Range RequestSpeaker::some_place() {
    const std::uint64_t length = one_in(8) ? edge() : some_length();
    const std::uint64_t offset = length > manners_.disk_bytes / 2 ? pick(5000) : edge();
    if (!one_in(2)) {
        return {offset, length};
    }
    // Storage without the page cache takes only such requests as they are.
    const std::uint64_t unit = one_in(2) ? 512 : 4096;
    return {align_down(offset, unit), align_down(length, unit)};
}

Command RequestSpeaker::some_command() {
    constexpr std::array<Command, 10> kCommands = {
        Command::read,         Command::read,        Command::write, Command::write,
        Command::write,        Command::flush,       Command::trim,  Command::cache,
        Command::write_zeroes, Command::block_status};
    if (one_in(60)) {
        return static_cast<Command>(8 + pick(65536 - 8));
    }
    return lies(60) ? Command::disconnect : one_of(kCommands);
}

void RequestSpeaker::say_request() {
    Said said{.cookie = random_(), .command = some_command()};
    if (said.command != Command::flush) {
        const Range place = some_place();
        said.offset = place.offset;
        said.length = place.length;
    }
    if (said.command == Command::read && said.length <= manners_.disk_bytes) {
        said.length = std::min(said.length, answers_left_);
        answers_left_ -= said.length;
    }
    if (one_in(3)) {
        said.flags = static_cast<std::uint16_t>(std::uint16_t{1} << pick(6));
    }
    const Bytes payload = extended_ ? extended_payload(said) : compact_payload(said);
    say_header(said);
    made_.bytes.insert(made_.bytes.end(), payload.begin(), payload.end());
    said.must_succeed = is_right(said, !payload.empty());
    made_.requests.push_back(said);
}

// What is too long to be said: who is honest asks for less, others say less than they announce.
Bytes RequestSpeaker::compact_payload(Said& said) {
    const std::uint64_t most = std::min(2 * manners_.disk_bytes, payload_left_);
    said.length = static_cast<std::uint32_t>(said.length);
    if (said.command != Command::write) {
        return {};
    }
    if (made_.honest) {
        said.length = std::min(said.length, most);
    }
    said.fill = static_cast<std::byte>(random_());
    const std::uint64_t bytes = std::min(said.length, most);
    payload_left_ -= bytes;
    return Bytes(bytes, said.fill);
}

// Any command may have one here, and is refused if it is none that should.
Bytes RequestSpeaker::extended_payload(Said& said) {
    const bool write = said.command == Command::write;
    Bytes payload;
    if (said.command == Command::block_status && one_in(2)) {
        append(payload, Big64(said.length));
        for (std::uint64_t contexts = pick(4); contexts > 0; --contexts) {
            append(payload, Big32(static_cast<std::uint32_t>(pick(4))));
        }
    } else if (write != one_in(40)) {
        said.fill = static_cast<std::byte>(random_());
        payload.resize(std::min({said.length, 2 * manners_.disk_bytes, payload_left_}), said.fill);
        payload_left_ -= payload.size();
    }
    if (!payload.empty()) {
        said.flags |= wire::kPayloadLength;
        said.length = payload.size();
    } else if (made_.honest) {
        said.flags &= static_cast<std::uint16_t>(~wire::kPayloadLength);
    }
    return payload;
}

void RequestSpeaker::say_header(const Said& said) {
    const auto command = static_cast<std::uint16_t>(said.command);
    if (extended_) {
        append(made_.bytes, wire::ExtendedRequestHeader{.magic = wire::kExtendedRequestMagic,
                                                        .flags = said.flags,
                                                        .command = command,
                                                        .cookie = said.cookie,
                                                        .offset = said.offset,
                                                        .length = said.length});
    } else {
        append(made_.bytes, wire::RequestHeader{.magic = wire::kRequestMagic,
                                                .flags = said.flags,
                                                .command = command,
                                                .cookie = said.cookie,
                                                .offset = said.offset,
                                                .length = static_cast<std::uint32_t>(said.length)});
    }
}

// Whether there is no reason to refuse it.
bool RequestSpeaker::is_right(const Said& said, bool has_payload) const {
    const std::uint16_t harmless = wire::kFua | (extended_ ? wire::kPayloadLength : 0);
    if ((said.flags & ~harmless) != 0 || has_payload != (said.command == Command::write)) {
        return false;
    }
    switch (said.command) {
        case Command::flush:
            return true;
        case Command::write:
        case Command::trim:
        case Command::write_zeroes:
            if (made_.export_name != "disk") {
                return false;
            }
            break;
        case Command::read:
        case Command::cache:
            break;
        default:
            return false;  // depends on what was agreed on
    }
    return said.length > 0 && Range::fits(said.offset, said.length, manners_.disk_bytes) &&
           (said.command != Command::read || said.length <= kMaxAcceptedPayloadBytes);
}

void RequestSpeaker::say_many_reads() {
    for (std::uint64_t requests = pick(150); requests > 0; --requests) {
        // From the page cache large ones need no memory, and of others only these.
        const std::uint64_t length = one_in(2) ? pick(64 << 10) : (128 << 10) + pick(128 << 10);
        Said said{.cookie = random_(),
                  .command = Command::read,
                  .offset = pick(manners_.disk_bytes - length),
                  .length = length};
        if (one_in(2)) {
            said.offset = align_down(said.offset, 4096);
            said.length = align_up(said.length, 4096);
        }
        if (said.length > answers_left_) {
            return;
        }
        answers_left_ -= said.length;
        say_header(said);
        said.must_succeed = is_right(said, false);
        made_.requests.push_back(said);
    }
}

void RequestSpeaker::say_half_a_write() {
    say_header({.cookie = random_(),
                .command = Command::write,
                .flags = extended_ ? wire::kPayloadLength : std::uint16_t{0},
                .offset = 0,
                .length = manners_.disk_bytes - pick(1 << 20)});
    made_.bytes.resize(made_.bytes.size() + pick(300'000), static_cast<std::byte>(random_()));
}

void RequestSpeaker::say_goodbye() {
    say_header({.cookie = random_(), .command = Command::disconnect});
    made_.goodbye = true;
}

}  // namespace nbdm::fuzz
