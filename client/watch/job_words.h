// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "client/watch/glyphs.h"
#include "client/watch/job_view.h"
#include "client/watch/styled_line.h"

namespace nbdm {

// What is said of a job to people.
//
// Threads: any.

// "catching up".
[[nodiscard]] std::string words_of(Phase phase);
[[nodiscard]] Ink::Hue hue_of(Phase phase);
// What an operator must know first: the phase, or "paused", or "no answer".
struct Badge {
    std::string text;
    Ink::Hue hue = Ink::Hue::plain;
};
[[nodiscard]] Badge badge_of(const JobView& job);

// What happens now, or what an operator can do.
struct Hint {
    std::string text;
    Ink::Hue hue = Ink::Hue::plain;
};
[[nodiscard]] Hint hint_of(const JobView& job);

// Source and target in at most `columns`.
[[nodiscard]] std::string ends_of(const DiskView& disk, std::size_t columns, const Glyphs& glyphs);
// By which the disks of one job are told apart.
[[nodiscard]] std::string short_name_of(const DiskView& disk);
// The first `columns` of it, with a sign where it is cut.
[[nodiscard]] std::string cut_to(const std::string& text, std::size_t columns,
                                 const Glyphs& glyphs);

// 0 to 1; 1 only when all is moved.
[[nodiscard]] double share_moved(const DiskView& disk);
[[nodiscard]] std::string percent_moved(const DiskView& disk);

// What is done to the writers; empty: nothing.
[[nodiscard]] std::string throttle_of(const JobView& job);
// "0.8 ms", "120 ms", "1.2 s"; never less than it is.
[[nodiscard]] std::string format_ms(double ms);

// Broken between words, in at most `most` lines; `cut` stands for what has no room.
[[nodiscard]] std::vector<std::string> wrapped(std::string_view text, std::size_t columns,
                                               std::size_t most, std::string_view cut);

}  // namespace nbdm
