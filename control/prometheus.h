// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace nbdm {

// Text in Prometheus's exposition format, version 0.0.4: a family is announced, then its samples
// follow.
//
// Threads: one at a time.
class PrometheusText {
  public:
    static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";
    using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

    void counter(std::string_view name, std::string_view help) { family(name, help, "counter"); }
    void gauge(std::string_view name, std::string_view help) { family(name, help, "gauge"); }
    void histogram(std::string_view name, std::string_view help) {
        family(name, help, "histogram");
    }
    void sample(Labels labels, std::uint64_t value);
    void real_sample(Labels labels, double value);

    // How many observations lie at or below `upper`, and above the bucket before.
    struct Bucket {
        double upper;
        std::uint64_t count;
    };
    struct Rest {
        std::uint64_t above;  // observations above the last bucket
        double sum;           // of all observations, in the family's unit
    };
    // `buckets` ascend; each counts for itself, the sums are made here.
    void histogram_sample(Labels labels, std::span<const Bucket> buckets, Rest rest);

    [[nodiscard]] const std::string& text() const noexcept { return text_; }

  private:
    void family(std::string_view name, std::string_view help, std::string_view type);
    void append_sample(std::string_view suffix, Labels labels, std::string_view upper,
                       std::string_view value);

    std::string text_;
    std::string name_;
};

}  // namespace nbdm
