// SPDX-License-Identifier: Apache-2.0
#include "client/watch/job_line.h"

#include <algorithm>

#include "client/watch/drawings.h"
#include "client/watch/job_words.h"
#include "control/size.h"

namespace nbdm {

namespace {

using Weight = Ink::Weight;

constexpr std::size_t kPhaseColumns = 13;  // "cutting over"
// A line that is shorter has no bar.
constexpr std::size_t kLeastBarColumns = 8;
constexpr std::size_t kMostBarColumns = 40;

std::uint64_t sum_of(const JobView& job, std::uint64_t DiskView::*field) {
    std::uint64_t sum = 0;
    for (const DiskView& disk : job.disks) {
        sum += disk.*field;
    }
    return sum;
}

// Of all of its disks.
DiskView together(const JobView& job) {
    DiskView all;
    all.moved_bytes = sum_of(job, &DiskView::moved_bytes);
    all.total_bytes = sum_of(job, &DiskView::total_bytes);
    all.dirty_bytes = sum_of(job, &DiskView::dirty_bytes);
    return all;
}

std::string size(std::uint64_t bytes) {
    return format_size(static_cast<double>(bytes));
}

}  // namespace

std::string job_line(const JobView& job) {
    const DiskView all = together(job);
    std::string line = job.job + ": " + to_string(job.phase);
    if (job.paused != Paused::no && !is_over(job.phase)) {
        line += ", paused";
    }
    line += ", " + percent_moved(all) + ", " + size(all.moved_bytes) + " of " +
            size(all.total_bytes) + ", " + size(all.dirty_bytes) + " dirty";
    const RateSample rates = rates_of(job);
    if (rates.copy && !is_over(job.phase)) {
        line += ", " + format_size(*rates.copy) + "/s";
    }
    if (job.eta_s) {
        line += ", " + format_time(*job.eta_s) + " left";
    }
    if (job.throttled) {
        line += ", " + throttle_of(job);
    }
    if (job.expected_downtime_ms) {
        line += ", downtime " + format_ms(*job.expected_downtime_ms) + " expected";
    }
    if (job.downtime_ms) {
        line += ", downtime " + format_ms(*job.downtime_ms);
    }
    if (job.silent) {
        line += ", no answer for " + std::to_string(job.silent->count()) + " s";
    }
    if (!job.error.empty()) {
        line += "; " + job.error;
    }
    return StyledLine().add(line).text(TextStyle(), line.size());
}

StyledLine list_line(const JobView& job, const ListFormat& format) {
    const Glyphs& glyphs = format.glyphs;
    const Badge badge = badge_of(job);
    StyledLine line;
    line.add(cut_to(job.job, format.name_columns, glyphs), {Ink::Hue::plain, Weight::bold});
    line.tab(format.name_columns + 2);
    line.add(badge.text, {badge.hue, Weight::bold});
    line.tab(format.name_columns + 2 + kPhaseColumns);

    StyledLine tail;
    const std::string percent = percent_moved(together(job));
    tail.tab(6 - std::min<std::size_t>(percent.size(), 5)).add(percent);
    if (is_over(job.phase)) {
        tail.add(job.downtime_ms ? "  downtime " + format_ms(*job.downtime_ms) : "");
    } else {
        const RateSample rates = rates_of(job);
        const std::string rate = rates.copy ? format_size(*rates.copy) + "/s" : glyphs.unknown;
        constexpr std::size_t kRateColumns = 12;  // "1023.9 MiB/s"
        tail.tab(8 + kRateColumns - std::min(columns_of(rate), kRateColumns)).add(rate);
        tail.add(job.eta_s ? "  " + format_time(*job.eta_s) + " left" : "");
    }
    // The widest tail decides, so that the bars end below one another.
    constexpr std::size_t kTailColumns = 40;
    const std::size_t beside = line.columns() + kTailColumns;
    if (format.columns > beside + kLeastBarColumns) {
        const std::size_t bar = std::min(format.columns - beside, kMostBarColumns);
        line.add(draw_bar(share_moved(together(job)), bar, {hue_of(job.phase)}, glyphs)).add(" ");
    }
    return line.add(tail);
}

}  // namespace nbdm
