// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "control/http_server.h"

namespace nbdm {

// What a control socket does for one method at one shape of path: "/v1/exports/*/hold", where an
// asterisk is any one segment.
//
// Threads: all of this file, the one that runs the loop of the HttpServer.
template <typename Handler>
struct HttpRoute {
    std::string_view method;
    std::string_view shape;
    Handler handler;
};

[[nodiscard]] bool has_shape(const std::vector<std::string>& path, std::string_view shape);
// `methods` are those that the request's path takes ("PUT, DELETE"): 404 when there are none, else
// 405.
void refuse_route(HttpRequest& request, const std::string& methods);

// The handler of the request; null when there is none, and then the request is answered.
template <typename Handler, std::size_t kCount>
Handler find_handler(const HttpRoute<Handler> (&routes)[kCount], HttpRequest& request) {
    std::string methods;
    for (const HttpRoute<Handler>& route : routes) {
        if (!has_shape(request.path, route.shape)) {
            continue;
        }
        if (route.method == request.method) {
            return route.handler;
        }
        methods.append(methods.empty() ? "" : ", ").append(route.method);
    }
    refuse_route(request, methods);
    return nullptr;
}

}  // namespace nbdm
