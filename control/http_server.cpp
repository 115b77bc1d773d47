// SPDX-License-Identifier: Apache-2.0
#include "control/http_server.h"

#include <exception>
#include <unistd.h>
#include <utility>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

#include "control/event.h"
#include "control/unix_socket.h"
#include "control/uri.h"
#include "iothread/check.h"

namespace nbdm {

namespace {

constexpr ev_ssize_t kMaxBodyBytes = 1 << 20;
// Others are answered with 501 by libevent.
constexpr unsigned kMethods = EVHTTP_REQ_GET | EVHTTP_REQ_PUT | EVHTTP_REQ_POST |
                              EVHTTP_REQ_DELETE | EVHTTP_REQ_PATCH | EVHTTP_REQ_HEAD |
                              EVHTTP_REQ_OPTIONS;

const char* method_name(evhttp_cmd_type method) noexcept {
    switch (method) {
        case EVHTTP_REQ_GET:
            return "GET";
        case EVHTTP_REQ_PUT:
            return "PUT";
        case EVHTTP_REQ_POST:
            return "POST";
        case EVHTTP_REQ_DELETE:
            return "DELETE";
        case EVHTTP_REQ_PATCH:
            return "PATCH";
        case EVHTTP_REQ_HEAD:
            return "HEAD";
        case EVHTTP_REQ_OPTIONS:
            return "OPTIONS";
        default:
            return "";
    }
}

std::vector<std::string> segments_of(const char* path) {
    std::vector<std::string> result;
    std::string_view left = path != nullptr ? path : "";
    while (!left.empty()) {
        left.remove_prefix(1);  // the slash
        const std::size_t slash = std::min(left.find('/'), left.size());
        result.push_back(percent_decode(left.substr(0, slash)));
        left.remove_prefix(slash);
    }
    return result;
}

}  // namespace

// What libevent knows of the request; null once answered, or when its connection is gone.
struct HttpRequest::Pending {
    evhttp_request* request = nullptr;
    std::function<void()> client_left;
    EventPointer hangup;

    // The call may destroy this.
    void left() {
        hangup.reset();
        if (const auto call = std::exchange(client_left, nullptr)) {
            call();
        }
    }
};

HttpRequest::HttpRequest(std::shared_ptr<Pending> pending) : pending_(std::move(pending)) {}

HttpRequest::~HttpRequest() {
    // While a handler's exception passes, HttpServer::handle() will answer with its text.
    if (pending_ && pending_->request != nullptr && std::uncaught_exceptions() == 0) {
        reply_error(500, "the request was not answered");
    }
}

void HttpRequest::on_client_left(std::function<void()> call) {
    if (pending_->request == nullptr) {
        return;
    }
    pending_->client_left = std::move(call);
    // libevent does not read while a request waits for its answer, and so sees no end of stream.
    evhttp_connection* connection = evhttp_request_get_connection(pending_->request);
    pending_->hangup.reset(event_new(
        evhttp_connection_get_base(connection),
        bufferevent_getfd(evhttp_connection_get_bufferevent(connection)), EV_CLOSED,
        [](evutil_socket_t, short, void* argument) { static_cast<Pending*>(argument)->left(); },
        pending_.get()));
    event_add(pending_->hangup.get(), nullptr);
}

void HttpRequest::add_header(const char* name, const std::string& value) {
    if (pending_->request != nullptr) {
        evhttp_add_header(evhttp_request_get_output_headers(pending_->request), name,
                          value.c_str());
    }
}

void HttpRequest::reply(int status, const nlohmann::json& answer) {
    reply_text(status, "application/json",
               answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void HttpRequest::reply_error(int status, const std::string& sentence) {
    reply(status, {{"error", sentence}});
}

void HttpRequest::reply_text(int status, const char* content_type, const std::string& text) {
    evhttp_request* request = std::exchange(pending_->request, nullptr);
    if (request == nullptr) {
        return;
    }
    pending_->hangup.reset();
    pending_->client_left = nullptr;
    evhttp_connection_set_closecb(evhttp_request_get_connection(request), nullptr, nullptr);
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", content_type);
    evbuffer* output = evbuffer_new();
    if (evhttp_request_get_command(request) != EVHTTP_REQ_HEAD) {
        evbuffer_add(output, text.data(), text.size());
    }
    evhttp_send_reply(request, status, nullptr, output);
    evbuffer_free(output);
}

HttpServer::HttpServer(event_base* base, std::string socket_path, Handler handler)
    : base_(base),
      socket_path_(std::move(socket_path)),
      handler_(std::move(handler)),
      http_(evhttp_new(base)) {
    evhttp_set_allowed_methods(http_.get(), kMethods);
    evhttp_set_max_body_size(http_.get(), kMaxBodyBytes);
    evhttp_set_max_headers_size(http_.get(), kMaxBodyBytes);
    evhttp_set_gencb(
        http_.get(),
        [](evhttp_request* request, void* self) {
            static_cast<HttpServer*>(self)->handle(request);
        },
        this);
    UniqueFd socket = bind_unix_socket(socket_path_, 0600);
    if (evhttp_accept_socket(http_.get(), socket.get()) != 0) {
        throw errno_error(errno, "cannot listen on '" + socket_path_ + "'");
    }
    [[maybe_unused]] const int owned_by_evhttp = socket.release();
}

void HttpServer::flush() {
    // In the first round an answer reaches its bufferevent, in the second that writes.
    event_base_loop(base_, EVLOOP_NONBLOCK);
    event_base_loop(base_, EVLOOP_NONBLOCK);
}

HttpServer::~HttpServer() {
    for (const auto& weak : pending_) {
        if (const auto pending = weak.lock()) {
            pending->request = nullptr;
            pending->hangup.reset();
            pending->client_left = nullptr;  // which may have the request itself
        }
    }
    ::unlink(socket_path_.c_str());
}

void HttpServer::handle(evhttp_request* raw) {
    pending_.remove_if([](const auto& weak) { return weak.expired(); });
    auto pending = std::make_shared<HttpRequest::Pending>();
    pending->request = raw;
    pending_.push_back(pending);
    // A client that leaves takes its request with it.
    evhttp_connection_set_closecb(
        evhttp_request_get_connection(raw),
        [](evhttp_connection*, void* argument) {
            auto* gone = static_cast<HttpRequest::Pending*>(argument);
            gone->request = nullptr;
            gone->left();
        },
        pending.get());
    HttpRequest request(pending);
    request.method = method_name(evhttp_request_get_command(raw));
    request.path = segments_of(evhttp_uri_get_path(evhttp_request_get_evhttp_uri(raw)));
    evbuffer* input = evhttp_request_get_input_buffer(raw);
    std::string text(evbuffer_get_length(input), '\0');
    evbuffer_remove(input, text.data(), text.size());
    request.body = text.empty() ? nlohmann::json::object()
                                : nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!request.body.is_object()) {
        request.reply_error(400, "the request's body is not a JSON object");
        return;
    }
    try {
        handler_(std::move(request));
    } catch (const std::invalid_argument& error) {
        HttpRequest(pending).reply_error(400, error.what());
    } catch (const std::exception& error) {
        HttpRequest(pending).reply_error(500, error.what());
    }
}

}  // namespace nbdm
