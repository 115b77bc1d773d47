// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include <sys/types.h>

#include <nlohmann/json.hpp>

namespace nbdm {

// No answer: the sentence names the socket and the cause.
class HttpError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

struct HttpResponse {
    int status = 0;
    nlohmann::json body;
    [[nodiscard]] bool ok() const noexcept { return status >= 200 && status < 300; }
    // The "error" of a refusal.
    [[nodiscard]] std::string error() const;
};

// Blocking HTTP with JSON over a Unix socket; one connection, kept open.
//
// Threads: one at a time.
class HttpClient {
  public:
    explicit HttpClient(std::string socket_path);
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;
    ~HttpClient();

    // `path` is encoded already. Throws HttpError when no answer came before the deadline, or
    // `cancelled` (asked several times a second; may be empty) said so.
    HttpResponse request(const std::string& method, const std::string& path,
                         const nlohmann::json& body, std::chrono::milliseconds timeout,
                         const std::function<bool()>& cancelled = {});

    // Who listened when the last request connected, or the one before whose connection it used;
    // nothing where that cannot be known.
    [[nodiscard]] std::optional<uid_t> peer() const;

    [[nodiscard]] const std::string& socket_path() const noexcept { return socket_path_; }

  private:
    struct Curl;
    const std::string socket_path_;
    const std::unique_ptr<Curl> curl_;
};

}  // namespace nbdm
