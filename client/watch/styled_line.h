// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace nbdm {

// What the terminal that text is for can show, and its user wants to see.
struct TextStyle {
    enum class Colours { none, basic, many };  // 16 that the terminal's theme chooses; 256
    bool unicode = false;                      // otherwise ASCII
    Colours colours = Colours::none;
};

// How a piece of text looks where there are colours. Nothing is told by it alone.
struct Ink {
    enum class Hue { plain, grey, green, yellow, red, blue };
    enum class Weight { normal, bold, badge };  // a badge: on a ground of its hue
    Hue hue = Hue::plain;
    Weight weight = Weight::normal;
};

// A line of text in pieces of different ink. Each character takes one column: text of others goes
// through printable() first.
//
// Threads: a plain value.
class StyledLine {
  public:
    StyledLine& add(std::string_view text, Ink ink = {});
    StyledLine& add(const StyledLine& other);
    // Spaces up to this column, and no fewer than one.
    StyledLine& tab(std::size_t column);

    [[nodiscard]] std::size_t columns() const noexcept { return columns_; }
    // With the escape sequences for its colours, cut to `most` columns; without spaces at its end.
    // Where there is no Unicode '?' stands for what is not ASCII.
    [[nodiscard]] std::string text(const TextStyle& style, std::size_t most) const;

  private:
    struct Piece {
        std::string text;
        Ink ink;
    };
    std::vector<Piece> pieces_;
    std::size_t columns_ = 0;
};

[[nodiscard]] std::size_t columns_of(std::string_view text) noexcept;
// The first `most` columns of it.
[[nodiscard]] std::string_view first_columns(std::string_view text, std::size_t most) noexcept;

// Text of others, with what could move the cursor, or is not one column wide, replaced by '?'.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace nbdm
