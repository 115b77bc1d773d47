// SPDX-License-Identifier: Apache-2.0
#include "client/watch/job_words.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace nbdm {

namespace {

using Hue = Ink::Hue;

bool waits(const JobView& job) {
    return job.paused != Paused::no && !is_over(job.phase);
}

// While this is so the job comes no nearer to being ready.
bool writers_are_faster(const JobView& job) {
    const RateSample rates = rates_of(job);
    return job.phase == Phase::catching_up && rates.copy && rates.dirty && *rates.copy > 0 &&
           *rates.dirty >= *rates.copy && job.max_downtime_ms &&
           job.expected_downtime_ms.value_or(0) > *job.max_downtime_ms;
}

}  // namespace

std::string words_of(Phase phase) {
    std::string words = to_string(phase);
    std::replace(words.begin(), words.end(), '_', ' ');
    return words;
}

Hue hue_of(Phase phase) {
    switch (phase) {
        case Phase::preparing:
        case Phase::copying:
        case Phase::catching_up:
            return Hue::blue;
        case Phase::ready:
        case Phase::done:
            return Hue::green;
        case Phase::cutting_over:
            return Hue::yellow;
        case Phase::failed:
        case Phase::cancelled:
            break;
    }
    return Hue::red;
}

Badge badge_of(const JobView& job) {
    if (job.silent) {
        return {"no answer", Hue::red};
    }
    return waits(job) ? Badge{"paused", Hue::yellow}
                      : Badge{words_of(job.phase), hue_of(job.phase)};
}

Hint hint_of(const JobView& job) {
    if (job.silent) {
        return {"Look at its process and at its log."};
    }
    if (waits(job)) {
        return {job.paused == Paused::by_operator
                    ? "To let it go on: nbd-mirror resume " + job.job
                    : "It goes on by itself in its window " + job.window + ".",
                Hue::yellow};
    }
    if (writers_are_faster(job)) {
        return {job.bwlimit_bytes_per_s
                    ? "More is written than copied: nbd-mirror set " + job.job + " --bwlimit off"
                    : "More is written than copied; it is ready when that changes.",
                Hue::yellow};
    }
    switch (job.phase) {
        case Phase::preparing:
            return {"Both ends are opened."};
        case Phase::copying:
            return {"All that is allocated is copied; the guest may write."};
        case Phase::catching_up:
            return {"What was written meanwhile is copied."};
        case Phase::ready:
            return {"Stop the guest, then: nbd-mirror cutover " + job.job, Hue::green};
        case Phase::cutting_over:
            return {"The writers are held; the last of it is copied.", Hue::yellow};
        case Phase::done:
            return {"The disk was handed over.", Hue::green};
        case Phase::failed:
            return {"The job has failed."};
        case Phase::cancelled:
            break;
    }
    return {"The source stays in service."};
}

std::string cut_to(const std::string& text, std::size_t columns, const Glyphs& glyphs) {
    if (columns_of(text) <= columns) {
        return text;
    }
    return std::string(first_columns(text, columns > 0 ? columns - 1 : 0)) + glyphs.cut;
}

std::string ends_of(const DiskView& disk, std::size_t columns, const Glyphs& glyphs) {
    const std::string arrow = std::string(" ") + glyphs.arrow + " ";
    const std::size_t room = columns > columns_of(arrow) ? columns - columns_of(arrow) : 0;
    // What one of them does not need of its half is the other's.
    const std::size_t half = room / 2;
    const std::size_t for_source =
        std::max(half, room > columns_of(disk.target) ? room - columns_of(disk.target) : 0);
    const std::string left = cut_to(disk.source, for_source, glyphs);
    return left + arrow + cut_to(disk.target, room - std::min(room, columns_of(left)), glyphs);
}

std::string short_name_of(const DiskView& disk) {
    constexpr std::string_view kServer = "server:";
    std::string name = disk.source;
    if (name.starts_with(kServer)) {
        name = name.substr(kServer.size());
        name = name.substr(0, name.find('@'));
    } else if (const std::size_t slash = name.find_last_of('/'); slash != std::string::npos) {
        name = name.substr(slash + 1);
    }
    return name;
}

double share_moved(const DiskView& disk) {
    if (disk.total_bytes == 0) {
        return 0;
    }
    return std::min(static_cast<double>(disk.moved_bytes) / static_cast<double>(disk.total_bytes),
                    1.0);
}

std::string percent_moved(const DiskView& disk) {
    constexpr double kAll = 100;
    return std::to_string(static_cast<int>(std::floor(kAll * share_moved(disk)))) + " %";
}

std::string throttle_of(const JobView& job) {
    if (!job.throttled) {
        return "";
    }
    return job.throttle_ms ? "each write delayed by " + format_ms(*job.throttle_ms)
                           : "writes slowed down";
}

std::string format_ms(double ms) {
    constexpr double kTenths = 10;
    constexpr double kSecond = 1000;
    const auto tenths = [](double value) { return std::ceil(value * kTenths) / kTenths; };
    std::array<char, 32> text{};
    if (ms > 0 && ms < kTenths) {
        std::snprintf(text.data(), text.size(), "%.1f ms", tenths(ms));
    } else if (std::ceil(ms) < kSecond) {
        std::snprintf(text.data(), text.size(), "%.0f ms", std::ceil(ms));
    } else {
        std::snprintf(text.data(), text.size(), "%.1f s", tenths(ms / kSecond));
    }
    return text.data();
}

std::vector<std::string> wrapped(std::string_view text, std::size_t columns, std::size_t most,
                                 std::string_view cut) {
    std::vector<std::string> lines;
    while (!text.empty() && lines.size() < most && columns > 0) {
        if (columns_of(text) <= columns) {
            lines.emplace_back(text);
            break;
        }
        std::string_view line = first_columns(text, columns);
        if (lines.size() + 1 == most) {
            lines.push_back(std::string(first_columns(text, columns - 1)) + std::string(cut));
            break;
        }
        // A word that is longer than a line is broken.
        const std::size_t space = first_columns(text, columns + 1).rfind(' ');
        if (space != std::string_view::npos && space > 0) {
            line = text.substr(0, space);
        }
        lines.emplace_back(line);
        text.remove_prefix(line.size());
        text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    }
    return lines;
}

}  // namespace nbdm
