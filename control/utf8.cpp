// SPDX-License-Identifier: Apache-2.0
#include "control/utf8.h"

#include <nlohmann/json.hpp>

namespace nbdm {

using nlohmann::json;

bool is_utf8(const std::string& text) {
    return as_utf8(text) == text;
}

std::string as_utf8(const std::string& text) {
    return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace nbdm
