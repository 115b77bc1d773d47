// SPDX-License-Identifier: Apache-2.0
#include "control/prometheus.h"

#include <array>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

TEST(Prometheus, FamilyIsAnnouncedOnceThenItsSamplesFollow) {
    PrometheusText text;
    text.counter("requests_total", "Requests.");
    text.sample({{"export", "a"}, {"kind", "read"}}, 3);
    text.sample({{"export", "b"}, {"kind", "read"}}, 18446744073709551615U);
    text.gauge("connections", "Clients.");
    text.sample({}, 0);
    EXPECT_EQ(text.text(),
              "# HELP requests_total Requests.\n"
              "# TYPE requests_total counter\n"
              "requests_total{export=\"a\",kind=\"read\"} 3\n"
              "requests_total{export=\"b\",kind=\"read\"} 18446744073709551615\n"
              "# HELP connections Clients.\n"
              "# TYPE connections gauge\n"
              "connections 0\n");
}

TEST(Prometheus, LabelCannotEndItsQuotesOrItsLine) {
    PrometheusText text;
    text.gauge("g", "G.");
    text.sample({{"name", "a\"b\\c\nd"}}, 1);
    EXPECT_NE(text.text().find("g{name=\"a\\\"b\\\\c\\nd\"} 1\n"), std::string::npos)
        << text.text();
}

TEST(Prometheus, HelpStaysOneLine) {
    PrometheusText text;
    text.gauge("g", "first\nsecond \\ \"quoted\"");
    EXPECT_NE(text.text().find("# HELP g first\\nsecond \\\\ \"quoted\"\n"), std::string::npos)
        << text.text();
}

TEST(Prometheus, HistogramBucketsAreCumulativeAndEndWithAll) {
    PrometheusText text;
    text.histogram("latency_seconds", "Latency.");
    const std::array<PrometheusText::Bucket, 2> buckets = {{{0.001, 5}, {0.25, 2}}};
    text.histogram_sample({{"export", "a"}}, buckets, {.above = 1, .sum = 1.5});
    EXPECT_EQ(text.text(),
              "# HELP latency_seconds Latency.\n"
              "# TYPE latency_seconds histogram\n"
              "latency_seconds_bucket{export=\"a\",le=\"0.001\"} 5\n"
              "latency_seconds_bucket{export=\"a\",le=\"0.25\"} 7\n"
              "latency_seconds_bucket{export=\"a\",le=\"+Inf\"} 8\n"
              "latency_seconds_sum{export=\"a\"} 1.5\n"
              "latency_seconds_count{export=\"a\"} 8\n");
}

TEST(Prometheus, HistogramWithoutLabelsIsWellFormed) {
    PrometheusText text;
    text.histogram("h", "H.");
    text.histogram_sample({}, {}, {.above = 0, .sum = 0});
    EXPECT_NE(text.text().find("h_bucket{le=\"+Inf\"} 0\nh_sum 0\nh_count 0\n"), std::string::npos)
        << text.text();
}

}  // namespace
}  // namespace nbdm
