// SPDX-License-Identifier: Apache-2.0
#include "client/job_metrics.h"

#include <gtest/gtest.h>

namespace nbdm {
namespace {

JobSnapshot paused_job() {
    JobSnapshot snapshot;
    snapshot.job = "vm1";
    snapshot.disks.resize(1);
    snapshot.disks[0].ends.source = "server:vm1";
    snapshot.phase = Phase::ready;
    snapshot.paused = Paused::by_window;
    snapshot.disks[0].passes = 3;
    snapshot.disks[0].connections = 4;
    return snapshot;
}

void expect_line(const std::string& text, const std::string& line) {
    EXPECT_NE(text.find("\n" + line + "\n"), std::string::npos) << line << " in:\n" << text;
}

TEST(JobMetrics, WhatIsNotKnownHasNoSample) {
    const std::string text = job_metrics(paused_job());
    for (const char* name :
         {"copy_rate_bytes_per_second", "dirty_rate_bytes_per_second", "eta_seconds",
          "expected_downtime_seconds", "downtime_seconds", "bandwidth_limit_bytes_per_second"}) {
        const std::string family = std::string("nbd_mirror_job_") + name;
        EXPECT_NE(text.find("# TYPE " + family + " gauge\n"), std::string::npos) << family;
        EXPECT_EQ(text.find("\n" + family + "{"), std::string::npos) << family;
    }
}

TEST(JobMetrics, TimesAreInSecondsAndRatesInBytes) {
    JobSnapshot snapshot = paused_job();
    snapshot.expected_downtime_ms = 12.5;
    snapshot.downtime_ms = 250;
    snapshot.max_downtime = std::chrono::milliseconds(1500);
    snapshot.disks[0].copy_rate = 1048576.5;
    snapshot.bwlimit_bytes_per_s = 1 << 20;
    snapshot.throttle_delay = std::chrono::milliseconds(2);
    const std::string text = job_metrics(snapshot);
    expect_line(text, "nbd_mirror_job_expected_downtime_seconds{job=\"vm1\"} 0.0125");
    expect_line(text, "nbd_mirror_job_downtime_seconds{job=\"vm1\"} 0.25");
    expect_line(text, "nbd_mirror_job_max_downtime_seconds{job=\"vm1\"} 1.5");
    expect_line(text, "nbd_mirror_job_throttle_delay_seconds{job=\"vm1\"} 0.002");
    expect_line(
        text,
        "nbd_mirror_job_copy_rate_bytes_per_second{job=\"vm1\",source=\"server:vm1\"} 1048576.5");
    expect_line(text, "nbd_mirror_job_bandwidth_limit_bytes_per_second{job=\"vm1\"} 1048576");
}

TEST(JobMetrics, SaysInWhichPhaseTheJobIsAndWhoPausesIt) {
    const std::string text = job_metrics(paused_job());
    expect_line(text, "nbd_mirror_job_phase{job=\"vm1\",phase=\"ready\"} 1");
    expect_line(text, "nbd_mirror_job_phase{job=\"vm1\",phase=\"copying\"} 0");
    expect_line(text, "nbd_mirror_job_paused{job=\"vm1\",by=\"operator\"} 0");
    expect_line(text, "nbd_mirror_job_paused{job=\"vm1\",by=\"window\"} 1");
    expect_line(text, "nbd_mirror_job_connections{job=\"vm1\",source=\"server:vm1\"} 4");
    expect_line(text, "nbd_mirror_job_passes_total{job=\"vm1\",source=\"server:vm1\"} 3");
}

}  // namespace
}  // namespace nbdm
