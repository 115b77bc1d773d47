// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/conversation.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "server/nbd_wire.h"

namespace nbdm::fuzz {

namespace {

using wire::Big16;
using wire::Big32;
using wire::Big64;
using wire::Command;
using wire::Option;

template <typename T, std::size_t N>
const T& one_of(Random& random, const std::array<T, N>& choices) {
    return choices[pick(random, N)];
}

template <typename T>
void append(Bytes& to, const T& value) {
    const auto bytes = wire::bytes_of(value);
    to.insert(to.end(), bytes.begin(), bytes.end());
}

void append_text(Bytes& to, std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
    to.insert(to.end(), bytes.begin(), bytes.end());
}

// With its length before it, which once in a while is a lie.
void append_counted(Random& random, Bytes& to, std::string_view text) {
    const std::uint64_t lie = one_in(random, 40) ? pick(random, 9000) : text.size();
    append(to, Big32(static_cast<std::uint32_t>(lie)));
    append_text(to, text);
}

std::string export_name(Random& random) {
    constexpr std::array<std::string_view, 6> kNames = {"disk",  "disk", "disk",
                                                        "fixed", "",     "none"};
    return one_in(random, 50) ? std::string(4097, 'x') : std::string(one_of(random, kNames));
}

void append_option(Bytes& to, Option option, const Bytes& data) {
    append(to, wire::OptionHeader{.magic = wire::kOptionMagic,
                                  .option = static_cast<std::uint32_t>(option),
                                  .length = static_cast<std::uint32_t>(data.size())});
    to.insert(to.end(), data.begin(), data.end());
}

Bytes go_data(Random& random, const std::string& name) {
    Bytes data;
    append_counted(random, data, name);
    const std::uint64_t count = pick(random, 6);
    append(data, Big16(static_cast<std::uint16_t>(one_in(random, 40) ? 65535 : count)));
    for (std::uint64_t i = 0; i < count; ++i) {
        append(data, Big16(static_cast<std::uint16_t>(pick(random, 5))));
    }
    return data;
}

Bytes context_data(Random& random, const std::string& name) {
    constexpr std::array<std::string_view, 7> kQueries = {"base:allocation",
                                                          "base:",
                                                          "nbd-mirror:dirty-bitmap:t",
                                                          "qemu:dirty-bitmap:t",
                                                          "nbd-mirror:",
                                                          "x:y",
                                                          ""};
    Bytes data;
    append_counted(random, data, name);
    const std::uint64_t count = pick(random, 5);
    append(data, Big32(static_cast<std::uint32_t>(one_in(random, 40) ? 1 << 30 : count)));
    for (std::uint64_t i = 0; i < count; ++i) {
        append_counted(random, data, one_of(random, kQueries));
    }
    return data;
}

void append_any_option(Random& random, Bytes& to) {
    const std::string name = export_name(random);
    switch (pick(random, 8)) {
        case 0:
            append_option(to, Option::structured_reply, {});
            break;
        case 1:
            append_option(to, Option::set_meta_context, context_data(random, name));
            break;
        case 2:
            append_option(to, Option::list_meta_context, context_data(random, name));
            break;
        case 3:
            append_option(to, Option::info, go_data(random, name));
            break;
        case 4:
            append_option(to, Option::list, {});
            break;
        case 5:
            append_option(to, Option::starttls, {});
            break;
        case 6:
            append_option(to, static_cast<Option>(pick(random, 20)), Bytes(pick(random, 100)));
            break;
        default:
            append_option(to, static_cast<Option>(random()), Bytes(pick(random, 70'000)));
            break;
    }
}

// Whether extended headers are asked for.
bool append_handshake(Random& random, Bytes& to) {
    const bool extended = one_in(random, 2);
    append(to, Big32(one_in(random, 30) ? static_cast<std::uint32_t>(random())
                                        : wire::kFixedNewstyle | wire::kNoZeroes));
    const std::string name = one_in(random, 8) ? export_name(random) : "disk";
    if (!one_in(random, 4)) {
        append_option(to, Option::structured_reply, {});
    }
    if (extended) {
        append_option(to, Option::extended_headers, {});
    }
    if (one_in(random, 2)) {
        append_option(to, Option::set_meta_context, context_data(random, name));
    }
    while (one_in(random, 3)) {
        append_any_option(random, to);
    }
    if (one_in(random, 6)) {
        Bytes plain;
        append_text(plain, name);
        append_option(to, Option::export_name, plain);
    } else {
        append_option(to, Option::go, go_data(random, name));
    }
    return extended;
}

std::uint64_t edge(Random& random, std::uint64_t disk_bytes) {
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
    return one_in(random, 6) ? one_of(random, edges) : pick(random, disk_bytes);
}

void append_request(Random& random, Bytes& to, std::uint64_t disk_bytes, bool extended) {
    const std::uint64_t command =
        one_in(random, 60) ? random() : (one_in(random, 60) ? 2 : pick(random, 8));
    const std::uint64_t offset = edge(random, disk_bytes);
    std::uint64_t length = one_in(random, 8) ? edge(random, disk_bytes) : pick(random, 70'000);
    std::uint16_t flags = 0;
    if (one_in(random, 3)) {
        flags = static_cast<std::uint16_t>(std::uint16_t{1} << pick(random, 6));
    }
    const bool flush = command == static_cast<std::uint64_t>(Command::flush);
    if (extended) {
        const bool write = command == static_cast<std::uint64_t>(Command::write);
        Bytes payload;
        if (command == static_cast<std::uint64_t>(Command::block_status) && one_in(random, 2)) {
            append(payload, Big64(length));
            for (std::uint64_t contexts = pick(random, 4); contexts > 0; --contexts) {
                append(payload, Big32(static_cast<std::uint32_t>(pick(random, 4))));
            }
        } else if (write != one_in(random, 40)) {
            payload.resize(std::min<std::uint64_t>(length, 2 * disk_bytes),
                           static_cast<std::byte>(random()));
        }
        if (!payload.empty()) {
            flags |= wire::kPayloadLength;
            length = payload.size();
        }
        append(to, wire::ExtendedRequestHeader{.magic = wire::kExtendedRequestMagic,
                                               .flags = flags,
                                               .command = static_cast<std::uint16_t>(command),
                                               .cookie = random(),
                                               .offset = flush ? 0 : offset,
                                               .length = flush ? 0 : length});
        to.insert(to.end(), payload.begin(), payload.end());
        return;
    }
    append(to, wire::RequestHeader{.magic = wire::kRequestMagic,
                                   .flags = flags,
                                   .command = static_cast<std::uint16_t>(command),
                                   .cookie = random(),
                                   .offset = flush ? 0 : offset,
                                   .length = static_cast<std::uint32_t>(flush ? 0 : length)});
    if (command == static_cast<std::uint64_t>(Command::write)) {
        length = std::min<std::uint64_t>(static_cast<std::uint32_t>(length), 2 * disk_bytes);
        to.insert(to.end(), length, static_cast<std::byte>(random()));
    }
}

void damage(Random& random, Bytes& bytes) {
    for (std::uint64_t times = 1 + pick(random, 6); times > 0 && !bytes.empty(); --times) {
        // Most bytes are payload; what is worth changing stands near the start.
        const std::uint64_t reach =
            one_in(random, 2) ? bytes.size() : std::min<std::size_t>(bytes.size(), 400);
        const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(pick(random, reach));
        const auto left = static_cast<std::uint64_t>(bytes.end() - at);
        const auto some =
            static_cast<std::ptrdiff_t>(pick(random, std::min<std::uint64_t>(left, 40)));
        switch (pick(random, 5)) {
            case 0:
                *at ^= static_cast<std::byte>(1U << pick(random, 8));
                break;
            case 1:
                *at = static_cast<std::byte>(one_in(random, 2) ? 0 : 255);
                break;
            case 2:
                bytes.erase(at, at + some);
                break;
            case 3: {
                const Bytes again(at, at + some);
                bytes.insert(at, again.begin(), again.end());
                break;
            }
            default:
                if (one_in(random, 3)) {
                    bytes.erase(at, bytes.end());
                }
                break;
        }
    }
}

}  // namespace

std::uint64_t pick(Random& random, std::uint64_t below) {
    return below == 0 ? 0 : random() % below;
}

bool one_in(Random& random, unsigned times) {
    return pick(random, times) == 0;
}

Bytes make_conversation(Random& random, std::uint64_t disk_bytes) {
    Bytes bytes;
    const bool extended = append_handshake(random, bytes);
    for (std::uint64_t requests = pick(random, 40); requests > 0; --requests) {
        append_request(random, bytes, disk_bytes, extended);
    }
    if (one_in(random, 2)) {
        damage(random, bytes);
    }
    return bytes;
}

}  // namespace nbdm::fuzz
