// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/conversation.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "iothread/range.h"
#include "server/request_limits.h"

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

class Speaker {
  public:
    Speaker(Random& random, const Manners& manners) : random_(random), manners_(manners) {
        made_.honest = manners.honest;
    }
    Conversation speak();

  private:
    [[nodiscard]] std::uint64_t pick(std::uint64_t below) { return fuzz::pick(random_, below); }
    [[nodiscard]] bool one_in(unsigned times) { return fuzz::one_in(random_, times); }
    // Whether to say now what is not so.
    [[nodiscard]] bool lies(unsigned times) { return !made_.honest && one_in(times); }

    void say_handshake();
    void say_any_option();
    void say_option(Option option, const Bytes& data);
    void append_counted(Bytes& to, std::string_view text);
    [[nodiscard]] std::string some_export();
    [[nodiscard]] Bytes go_data(const std::string& name);
    [[nodiscard]] Bytes context_data(const std::string& name);

    void say_request();
    void say_header(const Said& said);
    [[nodiscard]] Bytes compact_payload(Said& said);
    [[nodiscard]] Bytes extended_payload(Said& said);
    [[nodiscard]] bool is_right(const Said& said, bool has_payload) const;
    [[nodiscard]] Command some_command();
    [[nodiscard]] std::uint64_t edge();
    [[nodiscard]] Range some_place();

    Random& random_;
    const Manners manners_;
    Conversation made_;
    bool extended_ = false;
};

// With its length before it, which once in a while is a lie.
void Speaker::append_counted(Bytes& to, std::string_view text) {
    const std::uint64_t length = lies(40) ? pick(9000) : text.size();
    append(to, Big32(static_cast<std::uint32_t>(length)));
    append_text(to, text);
}

std::string Speaker::some_export() {
    constexpr std::array<std::string_view, 6> kNames = {"disk",  "disk", "disk",
                                                        "fixed", "",     "none"};
    if (lies(50)) {
        return std::string(4097, 'x');
    }
    return std::string(kNames[pick(made_.honest ? kNames.size() - 1 : kNames.size())]);
}

void Speaker::say_option(Option option, const Bytes& data) {
    append(made_.bytes, wire::OptionHeader{.magic = wire::kOptionMagic,
                                           .option = static_cast<std::uint32_t>(option),
                                           .length = static_cast<std::uint32_t>(data.size())});
    made_.bytes.insert(made_.bytes.end(), data.begin(), data.end());
    made_.options.push_back(option);
}

Bytes Speaker::go_data(const std::string& name) {
    Bytes data;
    append_counted(data, name);
    const std::uint64_t count = pick(6);
    append(data, Big16(static_cast<std::uint16_t>(lies(40) ? 65535 : count)));
    for (std::uint64_t i = 0; i < count; ++i) {
        append(data, Big16(static_cast<std::uint16_t>(pick(5))));
    }
    return data;
}

Bytes Speaker::context_data(const std::string& name) {
    constexpr std::array<std::string_view, 7> kQueries = {"base:allocation",
                                                          "base:",
                                                          "nbd-mirror:dirty-bitmap:t",
                                                          "qemu:dirty-bitmap:t",
                                                          "nbd-mirror:",
                                                          "x:y",
                                                          ""};
    Bytes data;
    append_counted(data, name);
    const std::uint64_t count = pick(5);
    append(data, Big32(static_cast<std::uint32_t>(lies(40) ? 1 << 30 : count)));
    for (std::uint64_t i = 0; i < count; ++i) {
        append_counted(data, one_of(random_, kQueries));
    }
    return data;
}

void Speaker::say_any_option() {
    const std::string name = some_export();
    // The last two may end the connection, or begin the transmission.
    switch (pick(made_.honest ? 6 : 8)) {
        case 0:
            say_option(Option::structured_reply, {});
            break;
        case 1:
            say_option(Option::set_meta_context, context_data(name));
            break;
        case 2:
            say_option(Option::list_meta_context, context_data(name));
            break;
        case 3:
            say_option(Option::info, go_data(name));
            break;
        case 4:
            say_option(Option::list, {});
            break;
        case 5:
            say_option(Option::starttls, {});
            break;
        case 6:
            say_option(static_cast<Option>(pick(20)), Bytes(pick(100)));
            break;
        default:
            say_option(static_cast<Option>(random_()), Bytes(pick(70'000)));
            break;
    }
}

void Speaker::say_handshake() {
    append(made_.bytes, Big32(lies(30) ? static_cast<std::uint32_t>(random_())
                                       : wire::kFixedNewstyle | wire::kNoZeroes));
    made_.export_name = one_in(8) ? some_export() : "disk";
    extended_ = one_in(2);
    if (!one_in(4)) {
        say_option(Option::structured_reply, {});
    }
    if (extended_) {
        say_option(Option::extended_headers, {});
    }
    if (one_in(2)) {
        say_option(Option::set_meta_context, context_data(made_.export_name));
    }
    while (one_in(3)) {
        say_any_option();
    }
    // With extended headers the old way of beginning is an offence.
    if (one_in(6) && !(made_.honest && extended_)) {
        Bytes plain;
        append_text(plain, made_.export_name);
        say_option(Option::export_name, plain);
    } else {
        say_option(Option::go, go_data(made_.export_name));
    }
}

std::uint64_t Speaker::edge() {
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
    return one_in(6) ? one_of(random_, edges) : pick(disk_bytes);
}

// Not always one that fits: offset and length are numbers like any other.
Range Speaker::some_place() {
    const std::uint64_t offset = edge();
    const std::uint64_t length = one_in(8) ? edge() : pick(70'000);
    if (!one_in(2)) {
        return {offset, length};
    }
    // Storage without the page cache takes only such requests as they are.
    const std::uint64_t unit = one_in(2) ? 512 : 4096;
    return {align_down(offset, unit), align_down(length, unit)};
}

Command Speaker::some_command() {
    constexpr std::array<Command, 10> kCommands = {
        Command::read,         Command::read,        Command::write, Command::write,
        Command::write,        Command::flush,       Command::trim,  Command::cache,
        Command::write_zeroes, Command::block_status};
    if (one_in(60)) {
        return static_cast<Command>(8 + pick(65536 - 8));
    }
    return lies(60) ? Command::disconnect : one_of(random_, kCommands);
}

void Speaker::say_request() {
    Said said{.cookie = random_(), .command = some_command()};
    if (said.command != Command::flush) {
        const Range place = some_place();
        said.offset = place.offset;
        said.length = place.length;
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
Bytes Speaker::compact_payload(Said& said) {
    const std::uint64_t most = 2 * manners_.disk_bytes;
    said.length = static_cast<std::uint32_t>(said.length);
    if (said.command != Command::write) {
        return {};
    }
    if (made_.honest) {
        said.length = std::min(said.length, most);
    }
    said.fill = static_cast<std::byte>(random_());
    return Bytes(std::min(said.length, most), said.fill);
}

// Any command may have one here, and is refused if it is none that should.
Bytes Speaker::extended_payload(Said& said) {
    const bool write = said.command == Command::write;
    Bytes payload;
    if (said.command == Command::block_status && one_in(2)) {
        append(payload, Big64(said.length));
        for (std::uint64_t contexts = pick(4); contexts > 0; --contexts) {
            append(payload, Big32(static_cast<std::uint32_t>(pick(4))));
        }
    } else if (write != one_in(40)) {
        said.fill = static_cast<std::byte>(random_());
        payload.resize(std::min(said.length, 2 * manners_.disk_bytes), said.fill);
    }
    if (!payload.empty()) {
        said.flags |= wire::kPayloadLength;
        said.length = payload.size();
    } else if (made_.honest) {
        said.flags &= static_cast<std::uint16_t>(~wire::kPayloadLength);
    }
    return payload;
}

void Speaker::say_header(const Said& said) {
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
bool Speaker::is_right(const Said& said, bool has_payload) const {
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

Conversation Speaker::speak() {
    say_handshake();
    for (std::uint64_t requests = pick(40); requests > 0; --requests) {
        say_request();
    }
    if (!made_.honest && one_in(2)) {
        damage(random_, made_.bytes);
    } else if (one_in(2)) {
        say_header({.cookie = random_(), .command = Command::disconnect});
        made_.goodbye = true;
    }
    return std::move(made_);
}

}  // namespace

std::uint64_t pick(Random& random, std::uint64_t below) {
    return below == 0 ? 0 : random() % below;
}

bool one_in(Random& random, unsigned times) {
    return pick(random, times) == 0;
}

Conversation make_conversation(Random& random, const Manners& manners) {
    return Speaker(random, manners).speak();
}

}  // namespace nbdm::fuzz
