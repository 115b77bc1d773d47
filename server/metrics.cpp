// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.h"

#include <array>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "control/prometheus.h"
#include "server/server.h"

namespace nbdm {

namespace {

struct Reported {
    const Export& served;
    std::unique_ptr<Statistics> statistics;
};

double seconds(std::chrono::nanoseconds time) {
    return std::chrono::duration<double>(time).count();
}

template <typename Value>
void write_commands(PrometheusText& text, const Reported& reported, Value value) {
    for (std::size_t i = 0; i < Statistics::kCommands.size(); ++i) {
        if (!Statistics::kCommands[i].empty()) {
            text.sample({{"export", reported.served.name()}, {"command", Statistics::kCommands[i]}},
                        value(reported.statistics->requests[i]));
        }
    }
}

void write_requests(PrometheusText& text, const std::vector<Reported>& all) {
    text.counter("nbd_mirror_requests_total", "Requests of clients.");
    for (const Reported& each : all) {
        write_commands(text, each, [](const auto& requests) { return requests.count.get(); });
    }
    text.counter("nbd_mirror_request_bytes_total", "Bytes of requests that succeeded.");
    for (const Reported& each : all) {
        write_commands(text, each, [](const auto& requests) { return requests.bytes.get(); });
    }
    text.gauge("nbd_mirror_requests_in_flight", "Requests that are not answered yet.");
    for (const Reported& each : all) {
        text.sample({{"export", each.served.name()}}, each.statistics->in_flight.get());
    }
}

void write_errors(PrometheusText& text, const std::vector<Reported>& all) {
    text.counter("nbd_mirror_errors_total", "Requests answered with an error.");
    for (const Reported& each : all) {
        for (std::size_t i = 0; i < Statistics::kErrors.size(); ++i) {
            text.sample({{"export", each.served.name()}, {"error", Statistics::kErrors[i].name}},
                        each.statistics->errors[i].get());
        }
    }
}

void write_latency(PrometheusText& text, const std::vector<Reported>& all) {
    using Latency = Statistics::Latency;
    text.histogram("nbd_mirror_request_seconds", "From a request's arrival to its reply.");
    for (const Reported& each : all) {
        for (std::size_t i = 0; i < Statistics::kTimed.size(); ++i) {
            const Latency& latency = each.statistics->latency[i];
            std::array<PrometheusText::Bucket, Latency::kBuckets> buckets{};
            for (std::size_t bucket = 0; bucket < buckets.size(); ++bucket) {
                buckets[bucket] = {seconds(Latency::upper(bucket)), latency.buckets[bucket].get()};
            }
            const auto command = static_cast<std::size_t>(Statistics::kTimed[i]);
            text.histogram_sample(
                {{"export", each.served.name()}, {"command", Statistics::kCommands[command]}},
                buckets,
                {.above = latency.above.get(),
                 .sum = seconds(std::chrono::nanoseconds(latency.total_ns.get()))});
        }
    }
}

void write_limits(PrometheusText& text, const Server& server) {
    text.gauge("nbd_mirror_connections", "Connected clients.");
    text.sample({}, server.connections().size());
    text.gauge("nbd_mirror_connections_limit", "Clients that may be connected at a time.");
    text.sample({}, server.max_connections());
    text.gauge("nbd_mirror_connections_waiting_for_memory",
               "Connections that have no memory for their next request yet.");
    text.sample({}, server.memory().waiting_count());
    text.gauge("nbd_mirror_buffer_bytes", "Memory for the data of requests.");
    text.sample({}, server.memory().taken_bytes());
    text.gauge("nbd_mirror_buffer_limit_bytes", "Memory that the data of requests may take.");
    text.sample({}, server.memory().limit_bytes());
}

void write_states(PrometheusText& text, Server& server, const std::vector<Reported>& all) {
    const auto gauge = [&](const char* name, const char* help, auto value) {
        text.gauge(name, help);
        for (const Reported& each : all) {
            text.sample({{"export", each.served.name()}}, value(each.served));
        }
    };
    gauge("nbd_mirror_export_size_bytes", "Size of the disk.",
          [](const Export& each) { return each.size_bytes(); });
    gauge("nbd_mirror_export_held", "1 while the export's writers are held.",
          [&](const Export& each) { return server.hold_of(each).held() ? 1 : 0; });
    gauge("nbd_mirror_export_throttled", "1 while the export's writers are slowed down.",
          [](const Export& each) {
              const Throttle::Setting now = each.throttle().setting(Throttle::Clock::now());
              return now.delay.count() > 0 || now.bytes_per_s > 0 ? 1 : 0;
          });
    gauge("nbd_mirror_export_incoming", "1 until the disk has landed.",
          [](const Export& each) { return each.landing().expected() ? 1 : 0; });
    gauge("nbd_mirror_export_retired", "1 once the disk has moved away.",
          [](const Export& each) { return each.gate().retired() ? 1 : 0; });
    gauge("nbd_mirror_export_write_error", "1 once a data sync has failed.",
          [](const Export& each) { return each.write_back_error() != 0 ? 1 : 0; });
    text.counter("nbd_mirror_holds_total", "Holds on the export's writers that were begun.");
    for (const Reported& each : all) {
        text.sample({{"export", each.served.name()}}, server.hold_of(each.served).begun());
    }
}

void write_trackers(PrometheusText& text, const std::vector<Reported>& all) {
    text.gauge("nbd_mirror_tracker_dirty_bytes", "Dirty bytes, frozen ones included.");
    for (const Reported& each : all) {
        for (const TrackerStatus& tracker : each.served.trackers().status()) {
            text.sample({{"export", each.served.name()}, {"tracker", tracker.name}},
                        tracker.unacknowledged_bytes);
        }
    }
}

}  // namespace

std::string metrics_text(Server& server) {
    std::vector<Reported> all;
    for (const auto& each : server.exports().all()) {
        all.push_back({*each, std::make_unique<Statistics>()});
        server.add_statistics(*each, Server::Clients::all, *all.back().statistics);
    }
    PrometheusText text;
    write_limits(text, server);
    write_requests(text, all);
    write_errors(text, all);
    write_latency(text, all);
    write_states(text, server, all);
    write_trackers(text, all);
    return text.text();
}

}  // namespace nbdm
