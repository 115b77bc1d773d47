// SPDX-License-Identifier: Apache-2.0
#include "control/prometheus.h"

#include <array>
#include <charconv>

namespace nbdm {

namespace {

// In a label's value a quote is escaped too; in a help text it is plain.
void append_escaped(std::string& text, std::string_view value, bool quoted) {
    for (const char c : value) {
        if (c == '\\' || (c == '"' && quoted)) {
            text.push_back('\\');
            text.push_back(c);
        } else if (c == '\n') {
            text += "\\n";
        } else {
            text.push_back(c);
        }
    }
}

// The shortest text that reads back as the same number, whatever the locale.
std::string number(double value) {
    std::array<char, 32> text{};
    const auto result = std::to_chars(text.data(), text.data() + text.size(), value);
    return {text.data(), result.ptr};
}

}  // namespace

void PrometheusText::family(std::string_view name, std::string_view help, std::string_view type) {
    name_ = name;
    text_.append("# HELP ").append(name).append(" ");
    append_escaped(text_, help, /*quoted=*/false);
    text_.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
}

void PrometheusText::sample(Labels labels, std::uint64_t value) {
    append_sample("", labels, "", std::to_string(value));
}

void PrometheusText::real_sample(Labels labels, double value) {
    append_sample("", labels, "", number(value));
}

void PrometheusText::histogram_sample(Labels labels, std::span<const Bucket> buckets, Rest rest) {
    std::uint64_t count = 0;
    for (const Bucket& bucket : buckets) {
        count += bucket.count;
        append_sample("_bucket", labels, number(bucket.upper), std::to_string(count));
    }
    count += rest.above;
    append_sample("_bucket", labels, "+Inf", std::to_string(count));
    append_sample("_sum", labels, "", number(rest.sum));
    append_sample("_count", labels, "", std::to_string(count));
}

void PrometheusText::append_sample(std::string_view suffix, Labels labels, std::string_view upper,
                                   std::string_view value) {
    text_.append(name_).append(suffix);
    char before = '{';
    const auto append_label = [&](std::string_view name, std::string_view label) {
        text_.append(1, before).append(name).append("=\"");
        append_escaped(text_, label, /*quoted=*/true);
        text_ += '"';
        before = ',';
    };
    for (const auto& [name, label] : labels) {
        append_label(name, label);
    }
    if (!upper.empty()) {
        append_label("le", upper);
    }
    text_.append(before == '{' ? " " : "} ").append(value).append("\n");
}

}  // namespace nbdm
