// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>

namespace nbdm {

// Decides how many connections a job has, where that is left to it: tries another number, keeps it
// when that is worth it, and goes back otherwise. When the source's other clients get slower by
// more than half than they are beside few connections, half of the connections are given up.
//
// Threads: one at a time.
class ConnectionTuner {
  public:
    static constexpr unsigned kFirst = 2;
    static constexpr unsigned kMost = 16;
    // Between two looks.
    static constexpr std::chrono::seconds kInterval{2};

    // `least`: that the job has in any case.
    explicit ConnectionTuner(unsigned least);

    // Of one interval.
    struct Seen {
        double bytes_per_s = 0;
        // By something that the number of connections does not change.
        bool bounded = false;
        // Mean latencies of the source's other clients; nothing: they asked for too little.
        std::optional<double> read_us;
        std::optional<double> write_us;
    };
    // Call once in each interval in which the job copied all the time. Returns the connections from
    // now on.
    unsigned look(const Seen& seen) noexcept;

  private:
    // The latency of one kind of request beside few connections.
    class Baseline {
      public:
        [[nodiscard]] bool misses(std::optional<double> us) const noexcept { return us && !us_; }
        [[nodiscard]] bool is_exceeded_by(std::optional<double> us) const noexcept;
        void learn(std::optional<double> us) noexcept;

      private:
        std::optional<double> us_;
    };
    // What a trial is compared with.
    struct Proven {
        unsigned connections = 0;
        double bytes_per_s = 0;
    };

    // True when it is not the time to try anything.
    [[nodiscard]] bool mind_clients(const Seen& seen) noexcept;
    void compare(double bytes_per_s) noexcept;
    void try_another(double bytes_per_s) noexcept;
    void give_way(unsigned connections) noexcept;
    // To what is proven.
    void go_back() noexcept;
    void rest() noexcept;
    void forget_rate() noexcept;

    // Fixed after construction.
    unsigned least_;
    unsigned few_;  // beside which latencies are learned
    unsigned most_;

    unsigned connections_;
    Baseline reads_;
    Baseline writes_;
    unsigned slow_looks_ = 0;  // one after the other

    // The throughput with `connections_`, so far.
    double rate_sum_ = 0;
    unsigned rate_looks_ = 0;
    std::optional<Proven> proven_;  // as long as `connections_` are a trial
    bool upwards_ = true;           // where the next trial goes
    bool doubling_ = true;          // until a trial has failed
    unsigned resting_ = 0;          // comparisons until the next trial
    unsigned next_rest_;
    unsigned next_recovery_;
};

}  // namespace nbdm
