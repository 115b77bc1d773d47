// SPDX-License-Identifier: Apache-2.0
#include "control/prometheus.h"

namespace nbdm {

namespace {

void append_escaped(std::string& text, std::string_view value) {
    for (const char c : value) {
        if (c == '\\' || c == '"') {
            text.push_back('\\');
            text.push_back(c);
        } else if (c == '\n') {
            text += "\\n";
        } else {
            text.push_back(c);
        }
    }
}

}  // namespace

void PrometheusText::family(std::string_view name, std::string_view help, std::string_view type) {
    name_ = name;
    text_.append("# HELP ").append(name).append(" ").append(help).append("\n");
    text_.append("# TYPE ").append(name).append(" ").append(type).append("\n");
}

void PrometheusText::sample(Labels labels, std::uint64_t value) {
    text_ += name_;
    const char* before = "{";
    for (const auto& [name, label] : labels) {
        text_.append(before).append(name).append("=\"");
        append_escaped(text_, label);
        text_ += "\"";
        before = ",";
    }
    text_ += labels.size() == 0 ? " " : "} ";
    text_ += std::to_string(value) + "\n";
}

}  // namespace nbdm
