// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "client/watch/glyphs.h"
#include "client/watch/job_view.h"
#include "client/watch/styled_line.h"

namespace nbdm {

// A job in one line.
//
// Threads: any.

// Without colours and in ASCII, as long as it gets.
[[nodiscard]] std::string job_line(const JobView& job);

// Of a list whose lines have their parts below one another.
struct ListFormat {
    std::size_t columns = 80;
    std::size_t name_columns = 20;
    const Glyphs& glyphs;
};
[[nodiscard]] StyledLine list_line(const JobView& job, const ListFormat& format);

}  // namespace nbdm
