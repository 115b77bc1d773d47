// SPDX-License-Identifier: Apache-2.0
#include "control/request_body.h"

#include <algorithm>
#include <stdexcept>

namespace nbdm {

using nlohmann::json;

namespace {

[[noreturn]] void refuse_missing(const std::string& key) {
    throw std::invalid_argument("'" + key + "' is missing");
}

}  // namespace

const json* RequestBody::find(const std::string& key) {
    known_.insert(key);
    const auto found = body_.find(key);
    return found == body_.end() ? nullptr : &*found;
}

std::optional<std::string> RequestBody::optional_text(const std::string& key) {
    const json* value = find(key);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (!value->is_string()) {
        throw std::invalid_argument("'" + key + "' is a text");
    }
    return value->get<std::string>();
}

std::string RequestBody::text(const std::string& key) {
    const std::optional<std::string> value = optional_text(key);
    if (!value) {
        refuse_missing(key);
    }
    return *value;
}

std::optional<std::uint64_t> RequestBody::optional_number(const std::string& key,
                                                          std::uint64_t least, std::uint64_t most) {
    const json* value = find(key);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (!value->is_number_integer() || *value < least || *value > most) {
        throw std::invalid_argument("'" + key + "' is a whole number from " +
                                    std::to_string(least) + " to " + std::to_string(most));
    }
    return value->get<std::uint64_t>();
}

std::uint64_t RequestBody::number(const std::string& key, std::uint64_t least, std::uint64_t most) {
    const std::optional<std::uint64_t> value = optional_number(key, least, most);
    if (!value) {
        refuse_missing(key);
    }
    return *value;
}

const json::array_t& RequestBody::objects(const std::string& key) {
    const json* value = find(key);
    if (value == nullptr) {
        refuse_missing(key);
    }
    if (!value->is_array() || value->empty() ||
        !std::all_of(value->begin(), value->end(),
                     [](const json& each) { return each.is_object(); })) {
        throw std::invalid_argument("'" + key + "' is a list of objects");
    }
    // Not a copy: that of a value which is nested deeply takes all of the stack.
    return value->get_ref<const json::array_t&>();
}

bool RequestBody::flag(const std::string& key) {
    const json* value = find(key);
    if (value != nullptr && !value->is_boolean()) {
        throw std::invalid_argument("'" + key + "' is true or false");
    }
    return value != nullptr && value->get<bool>();
}

void RequestBody::end() const {
    for (const auto& [key, value] : body_.items()) {
        if (known_.count(key) == 0) {
            throw std::invalid_argument("'" + key + "' is not known here");
        }
    }
}

}  // namespace nbdm
