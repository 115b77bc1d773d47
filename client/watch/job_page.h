// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "client/watch/job_view.h"
#include "client/watch/styled_line.h"

namespace nbdm {

// What a page is drawn for.
struct PageFormat {
    std::size_t columns = 80;
    std::size_t rows = 24;
    TextStyle style;
    std::string corner;  // said at the top right; and at the bottom right:
    std::string foot;
};

// A job on one page: what it does, how far it is, what an operator can do. At most `rows` lines of
// at most `columns - 1` columns; what matters least is left out first. Good from 40 by 10 on.
//
// Threads: any.
[[nodiscard]] std::vector<std::string> draw_job_page(const JobView& job, const RateHistory& history,
                                                     const PageFormat& format);

}  // namespace nbdm
