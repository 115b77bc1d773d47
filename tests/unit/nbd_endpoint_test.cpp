// SPDX-License-Identifier: Apache-2.0
#include "client/nbd_endpoint.h"

#include <algorithm>
#include <chrono>
#include <malloc.h>
#include <memory>
#include <optional>
#include <poll.h>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <gtest/gtest.h>

#include "control/unix_socket.h"
#include "iothread/check.h"
#include "iothread/memory_budget.h"
#include "server/connection.h"
#include "server/export.h"
#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

constexpr std::size_t kBytes = 4096;

// A disk of kBytes, served to one client.
class OneClientServer {
  public:
    OneClientServer() {
        ExportOptions options;
        options.path = directory_.file("disk");
        options.create_bytes = kBytes;
        exports_.add(std::make_unique<Export>(options, done_.get()));
        accepting_ = std::jthread([this] {
            pollfd wait{listening_.get(), POLLIN, 0};
            check_errno(::poll(&wait, 1, -1), "poll");
            UniqueFd socket(check_errno(
                ::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK),
                "accept"));
            same_socket_ = UniqueFd(check_errno(::dup(socket.get()), "dup"));
            connection_.emplace(std::move(socket),
                                Connection::Options{.id = 1,
                                                    .peer = "test",
                                                    .handshake_timeout = std::chrono::seconds(30),
                                                    .request_timeout = std::chrono::seconds(30),
                                                    .cpu = -1,
                                                    .done_fd = done_.get(),
                                                    .memory = &memory_},
                                exports_);
            connection_->start();
        });
    }
    [[nodiscard]] std::string uri() const {
        return "nbd+unix:///?socket=" + directory_.file("socket");
    }
    // A byte that is no part of any reply.
    void send_junk() const { ASSERT_EQ(::send(same_socket_.get(), "x", 1, 0), 1); }
    void end_connection() const { ASSERT_EQ(::shutdown(same_socket_.get(), SHUT_RDWR), 0); }

  private:
    const TemporaryDirectory directory_;
    const UniqueFd done_{check_errno(::eventfd(0, EFD_CLOEXEC), "eventfd")};
    const UniqueFd listening_ = bind_unix_socket(directory_.file("socket"), 0600);
    ExportTable exports_;
    MemoryBudget memory_{std::size_t{1} << 30, 4};
    UniqueFd same_socket_;
    std::optional<Connection> connection_;
    std::jthread accepting_;
};

struct OneRequest final : EndpointRequest {
    void done(int error) noexcept override {
        result = error;
        ++answers;
    }
    std::optional<int> result;
    int answers = 0;
};

// What is freed is filled with this while it lives: whoever reads it finds no small number.
class FreedMemoryIsFilled {
  public:
    FreedMemoryIsFilled() { ::mallopt(M_PERTURB, 0xc8); }
    FreedMemoryIsFilled(const FreedMemoryIsFilled&) = delete;
    FreedMemoryIsFilled& operator=(const FreedMemoryIsFilled&) = delete;
    ~FreedMemoryIsFilled() { ::mallopt(M_PERTURB, 0); }
};

class NbdEndpointTest : public testing::Test {
  protected:
    void read(OneRequest& request) { endpoint_.read(request, {0, kBytes}, data_.data()); }
    void run_to_end() {
        endpoint_.close();
        while (ring_.pending() > 0) {
            ring_.run_once(true);
        }
    }

    OneClientServer server_;
    const Cancellation cancellation_;
    NbdHandle handle_{server_.uri(), {}, cancellation_};
    Ring ring_{8};
    NbdEndpoint endpoint_{ring_, handle_};
    std::vector<std::byte> data_ = std::vector<std::byte>(kBytes);
};

// The ring says that the socket was readable a moment ago; somebody has emptied it since.
TEST_F(NbdEndpointTest, AWakeUpWithNothingToReadHoldsNothingUp) {
    OneRequest before;
    OneRequest after;
    const auto read_and_wait = [&](OneRequest& request) {
        read(request);
        bool answered = true;
        while (!request.result && answered) {
            answered = ring_.run_once(true, std::chrono::seconds(10));
        }
        EXPECT_EQ(request.result, 0) << "the request was not answered";
    };
    read_and_wait(before);
    ring_.run_once(false);  // submits the poll for what comes next
    server_.send_junk();
    char junk = 0;
    ASSERT_EQ(::recv(nbd_aio_get_fd(handle_.get()), &junk, 1, MSG_WAITALL), 1);
    ring_.run_once(true, std::chrono::seconds(10));
    read_and_wait(after);
    run_to_end();
}

// libnbd finds the connection ended when it sends the last one.
TEST_F(NbdEndpointTest, EachRequestOfAConnectionThatEndsIsAnsweredOnce) {
    constexpr std::size_t kRequests = 16;  // more than malloc keeps of a size without filling it
    const FreedMemoryIsFilled filled;
    std::vector<OneRequest> before(kRequests);
    for (OneRequest& each : before) {
        read(each);
    }
    while (std::ranges::any_of(before, [](const auto& each) { return !each.result; })) {
        ASSERT_TRUE(ring_.run_once(true, std::chrono::seconds(10)));
    }
    server_.end_connection();
    std::vector<OneRequest> requests(kRequests);
    for (OneRequest& each : requests) {
        read(each);
    }
    run_to_end();
    for (const OneRequest& each : requests) {
        EXPECT_EQ(each.answers, 1);
        EXPECT_TRUE(is_lost_connection(each.result.value_or(0)));
    }
}

}  // namespace
}  // namespace nbdm
