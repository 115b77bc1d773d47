// SPDX-License-Identifier: Apache-2.0
#include "control/http_routes.h"

namespace nbdm {

bool has_shape(const std::vector<std::string>& path, std::string_view shape) {
    for (const std::string& segment : path) {
        if (shape.empty()) {
            return false;
        }
        shape.remove_prefix(1);  // the slash
        const std::string_view wanted = shape.substr(0, shape.find('/'));
        if (wanted != "*" && wanted != segment) {
            return false;
        }
        shape.remove_prefix(wanted.size());
    }
    return shape.empty();
}

void refuse_route(HttpRequest& request, const std::string& methods) {
    if (methods.empty()) {
        request.reply_error(404, "there is nothing at this path");
        return;
    }
    request.add_header("Allow", methods);
    request.reply_error(405, "this path does not take " + request.method + "; it takes " + methods);
}

}  // namespace nbdm
