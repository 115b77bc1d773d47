// SPDX-License-Identifier: Apache-2.0
#include "client/job_metrics.h"

#include <optional>

#include "control/prometheus.h"

namespace nbdm {

namespace {

constexpr double kMillisecondsPerSecond = 1000;

// Of each disk one sample.
void write_disks(PrometheusText& text, const JobSnapshot& now) {
    const auto counter = [&](const char* name, const char* help, auto DiskSnapshot::*value) {
        text.counter(name, help);
        for (const DiskSnapshot& disk : now.disks) {
            text.sample({{"job", now.job}, {"source", disk.ends.source}}, disk.*value);
        }
    };
    const auto gauge = [&](const char* name, const char* help, auto DiskSnapshot::*value) {
        text.gauge(name, help);
        for (const DiskSnapshot& disk : now.disks) {
            text.sample({{"job", now.job}, {"source", disk.ends.source}}, disk.*value);
        }
    };
    const auto rate = [&](const char* name, const char* help,
                          std::optional<double> DiskSnapshot::*value) {
        text.gauge(name, help);
        for (const DiskSnapshot& disk : now.disks) {
            if (disk.*value) {
                text.real_sample({{"job", now.job}, {"source", disk.ends.source}}, *(disk.*value));
            }
        }
    };
    counter("nbd_mirror_job_moved_bytes_total", "Bytes that are at the target.",
            &DiskSnapshot::moved_bytes);
    counter("nbd_mirror_job_sent_bytes_total", "Bytes sent as data.", &DiskSnapshot::sent_bytes);
    counter("nbd_mirror_job_zeroed_bytes_total", "Bytes zeroed at the target.",
            &DiskSnapshot::zeroed_bytes);
    counter("nbd_mirror_job_passes_total", "Passes over the disk that were begun.",
            &DiskSnapshot::passes);
    gauge("nbd_mirror_job_size_bytes", "Size of the disk.", &DiskSnapshot::size_bytes);
    gauge("nbd_mirror_job_total_bytes", "Bytes to be moved, as far as known.",
          &DiskSnapshot::total_bytes);
    gauge("nbd_mirror_job_dirty_bytes", "Bytes written at the source and not copied.",
          &DiskSnapshot::dirty_bytes);
    gauge("nbd_mirror_job_connections", "Connections to each side.", &DiskSnapshot::connections);
    rate("nbd_mirror_job_copy_rate_bytes_per_second", "Data sent, a mean over some seconds.",
         &DiskSnapshot::copy_rate);
    rate("nbd_mirror_job_dirty_rate_bytes_per_second", "What became dirty during the last round.",
         &DiskSnapshot::dirty_rate);
}

void write_downtime(PrometheusText& text, const JobSnapshot& now) {
    const auto seconds = [&](const char* name, const char* help, std::optional<double> value) {
        text.gauge(name, help);
        if (value) {
            text.real_sample({{"job", now.job}}, *value);
        }
    };
    const auto of_ms = [](std::optional<double> ms) {
        return ms ? std::optional(*ms / kMillisecondsPerSecond) : std::nullopt;
    };
    seconds("nbd_mirror_job_eta_seconds", "Until everything is moved.", now.eta_s);
    seconds("nbd_mirror_job_expected_downtime_seconds",
            "How long writers would wait if the job were cut over now.",
            of_ms(now.expected_downtime_ms));
    seconds("nbd_mirror_job_max_downtime_seconds", "How long writers may wait at the cutover.",
            std::chrono::duration<double>(now.max_downtime).count());
    seconds("nbd_mirror_job_downtime_seconds", "How long writers have waited at the hand-over.",
            of_ms(now.downtime_ms));
}

void write_limits(PrometheusText& text, const JobSnapshot& now) {
    text.gauge("nbd_mirror_job_bandwidth_limit_bytes_per_second",
               "What may be copied and zeroed; no sample without a limit.");
    if (now.bwlimit_bytes_per_s) {
        text.sample({{"job", now.job}}, *now.bwlimit_bytes_per_s);
    }
    text.gauge("nbd_mirror_job_throttle_delay_seconds",
               "By how much each write at the source is delayed.");
    text.real_sample({{"job", now.job}}, std::chrono::duration<double>(now.throttle_delay).count());
    text.gauge("nbd_mirror_job_paused", "1 while the job is paused, and by whom.");
    text.sample({{"job", now.job}, {"by", "operator"}}, now.paused == Paused::by_operator ? 1 : 0);
    text.sample({{"job", now.job}, {"by", "window"}}, now.paused == Paused::by_window ? 1 : 0);
}

}  // namespace

std::string job_metrics(const JobSnapshot& snapshot) {
    PrometheusText text;
    text.gauge("nbd_mirror_job_phase", "1 for the phase the job is in.");
    for (const Phase phase : kPhases) {
        text.sample({{"job", snapshot.job}, {"phase", to_string(phase)}},
                    phase == snapshot.phase ? 1 : 0);
    }
    write_disks(text, snapshot);
    write_downtime(text, snapshot);
    write_limits(text, snapshot);
    return text.text();
}

}  // namespace nbdm
