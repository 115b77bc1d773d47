// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
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
    void sample(Labels labels, std::uint64_t value);

    [[nodiscard]] const std::string& text() const noexcept { return text_; }

  private:
    void family(std::string_view name, std::string_view help, std::string_view type);

    std::string text_;
    std::string name_;
};

}  // namespace nbdm
