// SPDX-License-Identifier: Apache-2.0
#include "control/uri.h"

#include <cctype>

namespace nbdm {

namespace {

std::string encode(std::string_view text, std::string_view also_plain) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    std::string result;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        const bool unreserved = (byte < 128 && std::isalnum(byte) != 0) ||
                                std::string_view("-._~").find(c) != std::string_view::npos;
        if (unreserved || also_plain.find(c) != std::string_view::npos) {
            result.push_back(c);
        } else {
            result.push_back('%');
            result.push_back(kDigits[byte >> 4]);
            result.push_back(kDigits[byte & 15]);
        }
    }
    return result;
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const int lower = std::tolower(static_cast<unsigned char>(c));
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

std::string percent_encode(std::string_view text) {
    return encode(text, "");
}

std::string percent_encode_path(std::string_view text) {
    return encode(text, "/");
}

std::string percent_decode(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 &&
            hex_digit(text[i + 2]) >= 0) {
            result.push_back(
                static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2])));
            i += 2;
        } else {
            result.push_back(text[i]);
        }
    }
    return result;
}

}  // namespace nbdm
