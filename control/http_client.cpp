// SPDX-License-Identifier: Apache-2.0
#include "control/http_client.h"

#include <mutex>

#include <sys/socket.h>

#include <curl/curl.h>

#include "iothread/check.h"

namespace nbdm {

struct HttpClient::Curl {
    CURL* handle = nullptr;
    curl_slist* headers = nullptr;
};

namespace {

std::size_t append(char* data, std::size_t size, std::size_t count, void* text) {
    static_cast<std::string*>(text)->append(data, size * count);
    return size * count;
}

std::string cause_of(CURLcode result, CURL* handle) {
    switch (result) {
        case CURLE_COULDNT_CONNECT: {
            long error = 0;
            curl_easy_getinfo(handle, CURLINFO_OS_ERRNO, &error);
            return (error != 0 ? error_text(static_cast<int>(error)) : "nobody listens there") +
                   " (does its program run?)";
        }
        case CURLE_OPERATION_TIMEDOUT:
            return "no answer in time";
        case CURLE_UNSUPPORTED_PROTOCOL:
        case CURLE_WEIRD_SERVER_REPLY:
            return "what answers there is no control socket (an NBD socket?)";
        case CURLE_ABORTED_BY_CALLBACK:
            return "cancelled";
        default:
            return curl_easy_strerror(result);
    }
}

int ask_cancelled(void* cancelled, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    const auto& ask = *static_cast<const std::function<bool()>*>(cancelled);
    return ask && ask() ? 1 : 0;
}

}  // namespace

std::string HttpResponse::error() const {
    if (body.is_object() && body.contains("error") && body["error"].is_string()) {
        return body["error"].get<std::string>();
    }
    return "HTTP status " + std::to_string(status);
}

HttpClient::HttpClient(std::string socket_path)
    : socket_path_(std::move(socket_path)), curl_(std::make_unique<Curl>()) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    curl_->handle = curl_easy_init();
    curl_->headers = curl_slist_append(nullptr, "Content-Type: application/json");
    curl_->headers = curl_slist_append(curl_->headers, "Expect:");
}

HttpClient::~HttpClient() {
    curl_slist_free_all(curl_->headers);
    curl_easy_cleanup(curl_->handle);
}

HttpResponse HttpClient::request(const std::string& method, const std::string& path,
                                 const nlohmann::json& body, std::chrono::milliseconds timeout,
                                 const std::function<bool()>& cancelled) {
    CURL* handle = curl_->handle;
    const std::string url = "http://nbd-mirror" + path;
    const std::string text = body.is_null() ? "" : body.dump();
    std::string answer;
    curl_easy_setopt(handle, CURLOPT_UNIX_SOCKET_PATH, socket_path_.c_str());
    curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
    curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, method.c_str());
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, curl_->headers);
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_PROXY, "");
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
    if (method == "GET") {
        curl_easy_setopt(handle, CURLOPT_HTTPGET, 1L);
    } else {
        curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE, static_cast<long>(text.size()));
        curl_easy_setopt(handle, CURLOPT_COPYPOSTFIELDS, text.c_str());
    }
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &append);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, &answer);
    curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &ask_cancelled);
    curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &cancelled);
    const CURLcode result = curl_easy_perform(handle);
    if (result != CURLE_OK) {
        throw HttpError("control socket '" + socket_path_ + "': " + cause_of(result, handle));
    }
    long status = 0;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    HttpResponse response{.status = static_cast<int>(status),
                          .body = nlohmann::json::parse(answer, nullptr, false)};
    if (response.body.is_discarded()) {
        throw HttpError("control socket '" + socket_path_ + "': the answer is not JSON");
    }
    return response;
}

std::optional<uid_t> HttpClient::peer() const {
    curl_socket_t socket = CURL_SOCKET_BAD;
    ucred credentials{};
    socklen_t length = sizeof(credentials);
    if (curl_easy_getinfo(curl_->handle, CURLINFO_ACTIVESOCKET, &socket) != CURLE_OK ||
        socket == CURL_SOCKET_BAD ||
        ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        return std::nullopt;
    }
    return credentials.uid;
}

}  // namespace nbdm
