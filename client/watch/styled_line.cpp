// SPDX-License-Identifier: Apache-2.0
#include "client/watch/styled_line.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

namespace nbdm {

namespace {

// The parameters of SGR (ECMA-48, 8.3.117). Of 256 colours those are taken that can be read on a
// dark ground and on a light one; the 16 are the theme's own. Grey is the theme's faint.
struct Sgr {
    const char* text;
    const char* badge;
};
constexpr std::array<Sgr, 6> kBasic = {
    {{"", "7"}, {"2", "7"}, {"32", "30;42"}, {"33", "30;43"}, {"31", "30;41"}, {"36", "30;46"}}};
constexpr std::array<Sgr, 6> kMany = {{{"", "7"},
                                       {"38;5;244", "38;5;16;48;5;244"},
                                       {"38;5;35", "38;5;16;48;5;35"},
                                       {"38;5;172", "38;5;16;48;5;172"},
                                       {"38;5;196", "38;5;16;48;5;196"},
                                       {"38;5;39", "38;5;16;48;5;39"}}};

std::string parameters(Ink ink, TextStyle::Colours colours) {
    if (colours == TextStyle::Colours::none) {
        return "";
    }
    const auto& table = colours == TextStyle::Colours::basic ? kBasic : kMany;
    const Sgr& sgr = table.at(static_cast<std::size_t>(ink.hue));
    std::string result = ink.weight == Ink::Weight::badge ? sgr.badge : sgr.text;
    if (ink.weight != Ink::Weight::normal) {
        result = result.empty() ? "1" : "1;" + result;
    }
    return result;
}

bool continues(char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

// One character in UTF-8.
struct Character {
    std::uint32_t code = 0;
    std::size_t bytes = 1;
};

// Nothing: it is not UTF-8.
std::optional<Character> character_at(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text.front());
    if (lead < 0x80) {
        return Character{lead, 1};
    }
    const std::size_t bytes = lead >= 0xF0 ? 4 : (lead >= 0xE0 ? 3 : 2);
    if (lead < 0xC2 || lead > 0xF4 || text.size() < bytes) {
        return std::nullopt;
    }
    std::uint32_t code = lead & (0xFFU >> (bytes + 1));
    for (const char byte : text.substr(1, bytes - 1)) {
        if (!continues(byte)) {
            return std::nullopt;
        }
        code = code << 6U | (static_cast<unsigned char>(byte) & 0x3FU);
    }
    return Character{code, bytes};
}

std::string in_ascii(std::string_view text) {
    std::string result;
    for (const char byte : text) {
        if (!continues(byte)) {
            result += static_cast<unsigned char>(byte) < 0x80 ? byte : '?';
        }
    }
    return result;
}

// Latin, Greek and Cyrillic letters take one column in every terminal; of others that is not known.
bool takes_one_column(std::uint32_t code) {
    const auto within = [code](std::uint32_t first, std::uint32_t last) {
        return code >= first && code <= last;
    };
    constexpr std::uint32_t kSoftHyphen = 0xAD;
    return within(0x20, 0x7E) || (within(0xA1, 0x2FF) && code != kSoftHyphen) ||
           within(0x388, 0x482) || within(0x48A, 0x52F);
}

}  // namespace

std::size_t columns_of(std::string_view text) noexcept {
    return text.size() -
           static_cast<std::size_t>(std::count_if(text.begin(), text.end(), continues));
}

std::string_view first_columns(std::string_view text, std::size_t most) noexcept {
    std::size_t columns = 0;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (!continues(text[at]) && columns++ == most) {
            return text.substr(0, at);
        }
    }
    return text;
}

std::string printable(std::string_view text) {
    std::string result;
    while (!text.empty()) {
        const std::optional<Character> next = character_at(text);
        const std::size_t bytes = next ? next->bytes : 1;
        result += next && takes_one_column(next->code) ? text.substr(0, bytes) : "?";
        text.remove_prefix(bytes);
    }
    return result;
}

StyledLine& StyledLine::add(std::string_view text, Ink ink) {
    if (!text.empty()) {
        pieces_.push_back({std::string(text), ink});
        columns_ += columns_of(text);
    }
    return *this;
}

StyledLine& StyledLine::add(const StyledLine& other) {
    pieces_.insert(pieces_.end(), other.pieces_.begin(), other.pieces_.end());
    columns_ += other.columns_;
    return *this;
}

StyledLine& StyledLine::tab(std::size_t column) {
    return add(std::string(column > columns_ ? column - columns_ : 1, ' '));
}

std::string StyledLine::text(const TextStyle& style, std::size_t most) const {
    std::string result;
    std::size_t end = 0;  // of what is not a space at the end
    for (const Piece& piece : pieces_) {
        const std::string_view cut = first_columns(piece.text, most);
        most -= columns_of(cut);
        const std::string part = style.unicode ? std::string(cut) : in_ascii(cut);
        const std::string sgr = part.empty() ? "" : parameters(piece.ink, style.colours);
        if (sgr.empty()) {
            result += part;
        } else {
            result.append("\x1b[").append(sgr).append("m").append(part).append("\x1b[0m");
        }
        if (part.find_first_not_of(' ') != std::string::npos) {
            end = sgr.empty() ? result.find_last_not_of(' ') + 1 : result.size();
        }
    }
    result.resize(end);
    return result;
}

}  // namespace nbdm
