// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include <event2/event.h>
#include <event2/http.h>
#include <nlohmann/json.hpp>

namespace nbdm {

class HttpServer;

// One request, to be answered once, now or later, from the loop's thread. One that is dropped
// unanswered is answered with 500; one whose client has left, or whose server is gone, swallows
// its answer. The answer to HEAD has no body.
class HttpRequest {
  public:
    HttpRequest(HttpRequest&&) noexcept = default;
    HttpRequest& operator=(HttpRequest&&) noexcept = delete;
    HttpRequest(const HttpRequest&) = delete;
    HttpRequest& operator=(const HttpRequest&) = delete;
    ~HttpRequest();

    std::string method;
    std::vector<std::string> path;  // decoded segments: {"v1", "exports", "a/b"}
    nlohmann::json body;            // an object; empty when there was no body

    // `call` is made, at most once, when the client leaves, or closes its sending
    // side, before its answer; it may destroy this.
    void on_client_left(std::function<void()> call);

    // Of the answer that is to come.
    void add_header(const char* name, const std::string& value);
    void reply(int status, const nlohmann::json& answer);
    void reply_text(int status, const char* content_type, const std::string& text);
    // {"error": sentence}: what failed, on what, and why.
    void reply_error(int status, const std::string& sentence);

  private:
    friend class HttpServer;
    struct Pending;
    explicit HttpRequest(std::shared_ptr<Pending> pending);
    std::shared_ptr<Pending> pending_;
};

// HTTP/1.1 with JSON over a Unix socket of mode 0600.
//
// What the handler throws is answered: std::invalid_argument with 400, other exceptions with 500.
//
// Threads: the one that runs `base`'s loop. Fails: the constructor throws std::system_error that
//          names the path; the socket's file is removed by the destructor.
// Needs:   a program that ignores SIGPIPE: a client may leave before its answer.
class HttpServer {
  public:
    using Handler = std::function<void(HttpRequest)>;

    HttpServer(event_base* base, std::string socket_path, Handler handler);
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;
    ~HttpServer();

    // What was answered when the loop ended is still on its way: hands it to the sockets.
    void flush();

  private:
    struct HttpFree {
        void operator()(evhttp* http) const noexcept { evhttp_free(http); }
    };
    void handle(evhttp_request* request);

    event_base* const base_;
    const std::string socket_path_;
    const Handler handler_;
    std::list<std::weak_ptr<HttpRequest::Pending>> pending_;
    std::unique_ptr<evhttp, HttpFree> http_;
};

}  // namespace nbdm
