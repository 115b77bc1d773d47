// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/option_speaker.h"

#include <span>

namespace nbdm::fuzz {

using wire::Big16;
using wire::Big32;
using wire::Option;

namespace {

void append_text(Bytes& to, std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
    to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace

// With its length before it, which once in a while is a lie.
void OptionSpeaker::append_counted(Bytes& to, std::string_view text) {
    const std::uint64_t length = lies(40) ? pick(9000) : text.size();
    append(to, Big32(static_cast<std::uint32_t>(length)));
    append_text(to, text);
}

std::string OptionSpeaker::some_export() {
    constexpr std::array<std::string_view, 6> kNames = {"disk",  "disk", "disk",
                                                        "fixed", "",     "none"};
    if (lies(50)) {
        return std::string(4097, 'x');
    }
    return std::string(kNames[pick(made_.honest ? kNames.size() - 1 : kNames.size())]);
}

void OptionSpeaker::say_option(Option option, const Bytes& data) {
    append(made_.bytes, wire::OptionHeader{.magic = wire::kOptionMagic,
                                           .option = static_cast<std::uint32_t>(option),
                                           .length = static_cast<std::uint32_t>(data.size())});
    made_.bytes.insert(made_.bytes.end(), data.begin(), data.end());
    made_.options.push_back(option);
}

Bytes OptionSpeaker::go_data(const std::string& name) {
    Bytes data;
    append_counted(data, name);
    const std::uint64_t count = pick(6);
    append(data, Big16(static_cast<std::uint16_t>(lies(40) ? 65535 : count)));
    for (std::uint64_t i = 0; i < count; ++i) {
        append(data, Big16(static_cast<std::uint16_t>(pick(5))));
    }
    return data;
}

Bytes OptionSpeaker::context_data(const std::string& name) {
    constexpr std::array<std::string_view, 9> kQueries = {"base:allocation",
                                                          "base:",
                                                          "nbd-mirror:dirty-bitmap:t",
                                                          "nbd-mirror:digest:0123456789abcdef:0",
                                                          "nbd-mirror:digest:0123456789abcdef:3",
                                                          "qemu:dirty-bitmap:t",
                                                          "nbd-mirror:",
                                                          "x:y",
                                                          ""};
    Bytes data;
    append_counted(data, name);
    const std::uint64_t count = pick(5);
    append(data, Big32(static_cast<std::uint32_t>(lies(40) ? 1 << 30 : count)));
    for (std::uint64_t i = 0; i < count; ++i) {
        append_counted(data, one_of(kQueries));
    }
    return data;
}

void OptionSpeaker::say_any_option() {
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

bool OptionSpeaker::say_handshake() {
    append(made_.bytes, Big32(lies(30) ? static_cast<std::uint32_t>(random_())
                                       : wire::kFixedNewstyle | wire::kNoZeroes));
    made_.export_name = one_in(8) ? some_export() : "disk";
    const bool extended = one_in(2);
    if (!one_in(4)) {
        say_option(Option::structured_reply, {});
    }
    if (extended) {
        say_option(Option::extended_headers, {});
    }
    if (one_in(2)) {
        say_option(Option::set_meta_context, context_data(made_.export_name));
    }
    while (one_in(3)) {
        say_any_option();
    }
    // With extended headers the old way of beginning is an offence.
    if (one_in(6) && !(made_.honest && extended)) {
        Bytes plain;
        append_text(plain, made_.export_name);
        say_option(Option::export_name, plain);
    } else {
        say_option(Option::go, go_data(made_.export_name));
    }
    return extended;
}

}  // namespace nbdm::fuzz
