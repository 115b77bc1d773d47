// SPDX-License-Identifier: Apache-2.0
// Both ends of the control socket against each other: HttpServer here, HttpClient on a thread.
#include <atomic>
#include <csignal>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <event2/event.h>
#include <gtest/gtest.h>

#include "control/event.h"
#include "control/http_client.h"
#include "control/http_routes.h"
#include "control/http_server.h"
#include "control/request_body.h"
#include "control/uri.h"
#include "iothread/unique_fd.h"
#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

class Http : public testing::Test {
  protected:
    static constexpr auto kDeadline = 10s;

    Http()
        : path_(directory_.file("control.sock")),
          base_(event_base_new()),
          done_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
          on_done_(event_new(
              base_.get(), done_.get(), EV_READ | EV_PERSIST,
              [](int fd, short, void* base) {
                  eventfd_t ignored = 0;
                  ::eventfd_read(fd, &ignored);
                  event_base_loopbreak(static_cast<event_base*>(base));
              },
              base_.get())) {
        std::signal(SIGPIPE, SIG_IGN);  // as HttpServer asks of the program
        event_add(on_done_.get(), nullptr);
        serve();
    }

    void serve() {
        server_ = std::make_unique<HttpServer>(
            base_.get(), path_, [this](HttpRequest request) { handler_(std::move(request)); });
    }

    // Runs `work` as the client, on a thread of its own, while the server's loop runs here.
    template <typename Work>
    auto as_client(Work work) {
        std::packaged_task<decltype(work())()> task(work);
        auto result = task.get_future();
        const std::jthread thread([&] {
            task();
            ::eventfd_write(done_.get(), 1);
        });
        event_base_dispatch(base_.get());
        return result.get();
    }

    HttpResponse ask(const std::string& method, const std::string& path, const json& body = {}) {
        return as_client([&] { return HttpClient(path_).request(method, path, body, kDeadline); });
    }

    [[nodiscard]] UniqueFd connect() const {
        UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
        if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address))) {
            throw std::runtime_error("cannot connect to the server under test");
        }
        return socket;
    }

    // The status line and what follows, of a request written byte by byte as given; the server is
    // asked to close afterwards.
    std::string ask_raw(const std::string& request) {
        return as_client([&] {
            const UniqueFd socket = connect();
            EXPECT_EQ(::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL),
                      static_cast<ssize_t>(request.size()));
            std::string answer;
            char part[4096];
            for (ssize_t count = 1; count > 0;) {
                count = ::recv(socket.get(), part, sizeof(part), 0);
                answer.append(part, static_cast<std::size_t>(count > 0 ? count : 0));
            }
            return answer;
        });
    }

    std::string ask_with_body(const std::string& body) {
        return ask_raw("POST /v1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " +
                       std::to_string(body.size()) + "\r\n\r\n" + body);
    }

    TemporaryDirectory directory_;
    const std::string path_;
    EventBasePointer base_;
    UniqueFd done_;
    EventPointer on_done_;
    std::function<void(HttpRequest)> handler_ = [](HttpRequest request) {
        request.reply(200,
                      {{"method", request.method}, {"path", request.path}, {"body", request.body}});
    };
    std::unique_ptr<HttpServer> server_;
};

TEST_F(Http, MethodPathAndBodyArrive) {
    for (const char* method : {"GET", "PUT", "POST", "DELETE", "PATCH"}) {
        const bool has_body = std::string(method) != "GET";
        const json body = has_body ? json{{"n", 1}} : json();
        const HttpResponse response = ask(method, "/v1/exports", body);
        EXPECT_EQ(response.status, 200) << method;
        EXPECT_EQ(response.body["method"], method);
        EXPECT_EQ(response.body["path"], (json{"v1", "exports"}));
        EXPECT_EQ(response.body["body"], has_body ? body : json::object());
    }
}

TEST_F(Http, EncodedSlashStaysInItsSegmentAndAQueryIsNoPartOfIt) {
    const HttpResponse response = ask("GET", "/v1/exports/" + percent_encode("a/b %") + "?x=/y");
    EXPECT_EQ(response.body["path"], (json{"v1", "exports", "a/b %"}));
}

TEST_F(Http, OneClientUsesItsConnectionForManyRequestsOfAllKinds) {
    as_client([&] {
        HttpClient client(path_);
        for (const char* method : {"POST", "GET", "PATCH", "GET", "DELETE", "GET"}) {
            const json body = std::string(method) == "PATCH" ? json{{"a", 2}} : json();
            const HttpResponse response = client.request(method, "/", body, kDeadline);
            EXPECT_EQ(response.body["method"], method);
            EXPECT_EQ(response.body["body"], body.is_null() ? json::object() : body);
        }
        return 0;
    });
}

TEST_F(Http, RefusalCarriesItsSentence) {
    handler_ = [](HttpRequest request) { request.reply_error(409, "the lease has lapsed"); };
    const HttpResponse response = ask("POST", "/v1/x");
    EXPECT_EQ(response.status, 409);
    EXPECT_FALSE(response.ok());
    EXPECT_EQ(response.error(), "the lease has lapsed");
}

TEST_F(Http, PathThatTakesOtherMethodsSaysWhich) {
    handler_ = [](HttpRequest request) {
        static constexpr HttpRoute<int*> kRoutes[] = {
            {"PUT", "/t/*", nullptr}, {"GET", "/u", nullptr}, {"DELETE", "/t/*", nullptr}};
        EXPECT_EQ(find_handler(kRoutes, request), nullptr);
    };
    const std::string end = " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const std::string answer = ask_raw("GET /t/1" + end);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 405")) << answer;
    EXPECT_NE(answer.find("Allow: PUT, DELETE\r\n"), std::string::npos) << answer;
    EXPECT_EQ(ask("GET", "/t/1").error(), "this path does not take GET; it takes PUT, DELETE");
    EXPECT_EQ(ask("GET", "/t").status, 404);
    EXPECT_TRUE(ask_raw("OPTIONS /u" + end).find("Allow: GET\r\n") != std::string::npos);
    // By its definition HEAD is answered without a body.
    const std::string head = ask_raw("HEAD /u" + end);
    EXPECT_TRUE(head.starts_with("HTTP/1.1 405") && head.ends_with("\r\n\r\n")) << head;
}

TEST_F(Http, TextKeepsItsContentType) {
    handler_ = [](HttpRequest request) { request.reply_text(200, "text/plain", "a 1\n"); };
    const std::string answer =
        ask_raw("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_NE(answer.find("Content-Type: text/plain\r\n"), std::string::npos) << answer;
    EXPECT_EQ(answer.substr(answer.size() - 4), "a 1\n");
}

TEST_F(Http, BodyThatIsNoObjectIsRefusedBeforeTheHandler) {
    bool handled = false;
    handler_ = [&](HttpRequest) { handled = true; };
    for (const char* body : {"{", "[1]", "3", "null", "{} x", "\xff"}) {
        EXPECT_EQ(ask_with_body(body).substr(0, 12), "HTTP/1.1 400") << body;
    }
    EXPECT_FALSE(handled);
}

TEST_F(Http, BodyOverTheLimitIsRefusedAndTheServerGoesOn) {
    const std::string answer =
        ask_raw("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n");
    EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 413") << answer;
    EXPECT_EQ(ask("GET", "/").status, 200);
}

TEST_F(Http, ExceptionOfTheHandlerBecomesItsText) {
    handler_ = [](HttpRequest) { throw std::runtime_error("the disk is gone"); };
    const HttpResponse response = ask("POST", "/");
    EXPECT_EQ(response.status, 500);
    EXPECT_EQ(response.error(), "the disk is gone");
}

TEST_F(Http, WrongTypeInTheBodyIsTheClientsFault) {
    handler_ = [](HttpRequest request) {
        request.reply(200, {{"n", RequestBody(request.body).number("n", 0, 7) + 1}});
    };
    EXPECT_EQ(ask("POST", "/", {{"n", "x"}}).status, 400);
    EXPECT_EQ(ask("POST", "/", {{"m", 1}}).status, 400);
    EXPECT_EQ(ask("POST", "/", {{"n", 1}}).status, 200);
}

TEST_F(Http, DroppedRequestIsAnsweredWith500) {
    handler_ = [](HttpRequest) {};
    EXPECT_EQ(ask("POST", "/").status, 500);
}

TEST_F(Http, RequestMayBeAnsweredLaterAndOthersMeanwhile) {
    std::optional<HttpRequest> waiting;
    handler_ = [&](HttpRequest request) {
        if (request.path[0] == "wait") {
            waiting.emplace(std::move(request));
        } else {
            waiting->reply(200, {{"answered", "late"}});
            request.reply(200, {{"answered", "at once"}});
        }
    };
    auto late = std::async(std::launch::async, [&] {
        return HttpClient(path_).request("POST", "/wait", {}, kDeadline);
    });
    while (!waiting) {
        event_base_loop(base_.get(), EVLOOP_ONCE);
    }
    EXPECT_EQ(ask("GET", "/go").body["answered"], "at once");
    while (late.wait_for(0s) != std::future_status::ready) {
        event_base_loop(base_.get(), EVLOOP_NONBLOCK);
    }
    EXPECT_EQ(late.get().body["answered"], "late");
}

TEST_F(Http, AnswerToAClientThatLeftIsSwallowed) {
    std::optional<HttpRequest> waiting;
    handler_ = [&](HttpRequest request) { waiting.emplace(std::move(request)); };
    {
        const UniqueFd socket = connect();
        const std::string request = "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n";
        ASSERT_GT(::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL), 0);
        while (!waiting) {
            event_base_loop(base_.get(), EVLOOP_ONCE);
        }
    }
    HttpRequest left = std::move(*waiting);
    waiting.reset();
    handler_ = [](HttpRequest request) { request.reply(200, json::object()); };
    EXPECT_EQ(ask("GET", "/").status, 200);  // the loop has seen the client leave
    left.reply(200, {{"too", "late"}});
    EXPECT_EQ(ask("GET", "/").status, 200);
}

TEST_F(Http, ClientThatLeftNeedsNoAnswer) {
    std::optional<HttpRequest> waiting;
    handler_ = [&](HttpRequest request) { waiting.emplace(std::move(request)); };
    {
        const UniqueFd socket = connect();
        const std::string request = "POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        ASSERT_GT(::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL), 0);
        while (!waiting) {
            event_base_loop(base_.get(), EVLOOP_ONCE);
        }
    }
    handler_ = [](HttpRequest request) { request.reply(200, json::object()); };
    EXPECT_EQ(ask("GET", "/").status, 200);
    waiting.reset();
    EXPECT_EQ(ask("GET", "/").status, 200);
}

TEST_F(Http, ClientThatLeavesIsNoticedWhileItsRequestWaits) {
    std::optional<HttpRequest> waiting;
    bool left = false;
    handler_ = [&](HttpRequest request) {
        waiting.emplace(std::move(request));
        waiting->on_client_left([&] {
            left = true;
            waiting.reset();
        });
    };
    std::optional<UniqueFd> socket(connect());
    const std::string request = "POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    ASSERT_GT(::send(socket->get(), request.data(), request.size(), MSG_NOSIGNAL), 0);
    while (!waiting) {
        event_base_loop(base_.get(), EVLOOP_ONCE);
    }
    event_base_loop(base_.get(), EVLOOP_NONBLOCK);
    EXPECT_FALSE(left);
    socket.reset();
    while (!left) {
        event_base_loop(base_.get(), EVLOOP_ONCE);
    }
    handler_ = [](HttpRequest other) { other.reply(200, json::object()); };
    EXPECT_EQ(ask("GET", "/").status, 200);
}

TEST_F(Http, AnswerAfterTheServerIsGoneIsSwallowed) {
    std::optional<HttpRequest> waiting;
    handler_ = [&](HttpRequest request) { waiting.emplace(std::move(request)); };
    const UniqueFd socket = connect();
    const std::string request = "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n";
    ASSERT_GT(::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL), 0);
    while (!waiting) {
        event_base_loop(base_.get(), EVLOOP_ONCE);
    }
    server_.reset();
    waiting->reply(200, json::object());
    char byte = 0;
    EXPECT_EQ(::recv(socket.get(), &byte, 1, 0), 0);
}

TEST_F(Http, SocketIsPrivateAndRemovedWithItsServer) {
    struct stat status {};
    ASSERT_EQ(::stat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    server_.reset();
    EXPECT_NE(::stat(path_.c_str(), &status), 0);
    EXPECT_NO_THROW(serve());
}

// The client's errors: each names the socket and its cause.

std::string failure_of(HttpClient& client, std::chrono::milliseconds timeout,
                       const std::function<bool()>& cancelled = {}) {
    try {
        client.request("GET", "/", {}, timeout, cancelled);
    } catch (const HttpError& error) {
        EXPECT_NE(std::string(error.what()).find(client.socket_path()), std::string::npos);
        return error.what();
    }
    return "";
}

TEST_F(Http, MissingSocketIsSaid) {
    HttpClient client(directory_.file("missing.sock"));
    EXPECT_NE(failure_of(client, kDeadline).find("No such file or directory"), std::string::npos);
}

TEST_F(Http, SocketOfADeadProcessIsSaid) {
    ASSERT_EQ(::rename(path_.c_str(), directory_.file("dead.sock").c_str()), 0);
    server_.reset();
    HttpClient client(directory_.file("dead.sock"));
    EXPECT_NE(failure_of(client, kDeadline).find("Connection refused"), std::string::npos);
}

TEST_F(Http, RequestEndsAtItsDeadline) {
    std::optional<HttpRequest> waiting;
    handler_ = [&](HttpRequest request) { waiting.emplace(std::move(request)); };
    const std::string failure = as_client([&] {
        HttpClient client(path_);
        return failure_of(client, 50ms);
    });
    EXPECT_NE(failure.find("no answer in time"), std::string::npos) << failure;
}

TEST_F(Http, BlockedRequestCanBeCancelled) {
    std::optional<HttpRequest> waiting;
    std::atomic<bool> stop{false};
    handler_ = [&](HttpRequest request) {
        waiting.emplace(std::move(request));
        stop = true;
    };
    const std::string failure = as_client([&] {
        HttpClient client(path_);
        return failure_of(client, kDeadline, [&] { return stop.load(); });
    });
    EXPECT_NE(failure.find("cancelled"), std::string::npos) << failure;
}

TEST_F(Http, AnswerThatIsNoJsonIsSaid) {
    handler_ = [](HttpRequest request) { request.reply_text(200, "text/plain", "hello"); };
    const std::string failure = as_client([&] {
        HttpClient client(path_);
        return failure_of(client, kDeadline);
    });
    EXPECT_NE(failure.find("not JSON"), std::string::npos) << failure;
}

}  // namespace
}  // namespace nbdm
