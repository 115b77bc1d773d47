// SPDX-License-Identifier: Apache-2.0
#include "client/watch/jobs_page.h"

#include <algorithm>
#include <iterator>

#include "client/watch/glyphs.h"
#include "client/watch/job_line.h"

namespace nbdm {

namespace {

// Below the list a page needs as much to be of use.
constexpr std::size_t kLeastPageRows = 10;
constexpr std::size_t kMostNameColumns = 20;

// In at most `rows` lines, the chosen one among them.
std::vector<StyledLine> draw_list(const std::list<WatchedJob>& jobs, std::size_t chosen,
                                  std::size_t rows, const PageFormat& format) {
    ListFormat line_format{.columns = format.columns > 2 ? format.columns - 2 : 0,
                           .name_columns = 0,
                           .glyphs = glyphs_of(format.style)};
    for (const WatchedJob& job : jobs) {
        line_format.name_columns = std::min(
            std::max(line_format.name_columns, columns_of(job.view().job)), kMostNameColumns);
    }
    const std::size_t first = chosen < rows ? 0 : chosen + 1 - rows;
    std::vector<StyledLine> lines;
    std::size_t index = 0;
    for (const WatchedJob& job : jobs) {
        if (index >= first && lines.size() < rows) {
            lines.push_back(StyledLine()
                                .add(index == chosen ? line_format.glyphs.chosen : " ")
                                .add(" ")
                                .add(list_line(job.view(), line_format)));
        }
        ++index;
    }
    return lines;
}

}  // namespace

std::vector<std::string> draw_jobs_page(const std::list<WatchedJob>& jobs, std::size_t chosen,
                                        const PageFormat& format) {
    const WatchedJob& job = *std::next(jobs.begin(), static_cast<std::ptrdiff_t>(chosen));
    if (jobs.size() == 1) {
        return draw_job_page(job.view(), job.history(), format);
    }
    const std::size_t for_list =
        format.rows > kLeastPageRows + 2 ? format.rows - kLeastPageRows - 1 : format.rows;
    std::vector<std::string> lines;
    for (const StyledLine& line : draw_list(jobs, chosen, for_list, format)) {
        lines.push_back(line.text(format.style, format.columns > 0 ? format.columns - 1 : 0));
    }
    if (lines.size() + 1 + kLeastPageRows <= format.rows) {
        lines.emplace_back();
        PageFormat below = format;
        below.rows -= lines.size();
        std::vector<std::string> page = draw_job_page(job.view(), job.history(), below);
        std::move(page.begin(), page.end(), std::back_inserter(lines));
    }
    return lines;
}

}  // namespace nbdm
