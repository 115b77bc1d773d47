// SPDX-License-Identifier: Apache-2.0
// Clients that say anything, one after another, to the real connection code. What must hold: each
// connection ends soon after its client has left, a read-only export never changes, and every
// changed block of a writable one is marked in its tracker. Crashes and worse are the sanitizers'.
//
// usage: connection_fuzz [SECONDS [FIRST_SEED]]; a failure names the seed that repeats it.
#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <iostream>
#include <memory>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "control/log.h"
#include "iothread/check.h"
#include "server/connection.h"
#include "server/export.h"
#include "server/request_limits.h"
#include "tests/fuzz/conversation.h"

namespace nbdm::fuzz {

namespace {

using Clock = std::chrono::steady_clock;

// No multiple of 512, so that the disk's end is an edge of its own.
constexpr std::uint64_t kDiskBytes = (256 << 10) + 100;
constexpr std::uint32_t kBlockBytes = 4096;
constexpr std::chrono::seconds kEndLimit{30};
const std::string kTracker = "t";

// A disk in memory, under a path that can be opened like any other.
struct MemoryDisk {
    MemoryDisk() : fd(check_errno(::memfd_create("disk", MFD_CLOEXEC), "cannot make a disk")) {
        check_errno(::ftruncate(fd.get(), static_cast<off_t>(kDiskBytes)), "cannot size a disk");
    }
    [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(fd.get()); }
    [[nodiscard]] Bytes content() const {
        Bytes bytes(kDiskBytes);
        const ssize_t got = ::pread(fd.get(), bytes.data(), bytes.size(), 0);
        if (got != static_cast<ssize_t>(kDiskBytes)) {
            throw std::runtime_error("the disk has lost a part");
        }
        return bytes;
    }
    UniqueFd fd;
};

// Sends all of it in pieces of any size and reads what comes, until the other side has closed.
void speak(int fd, std::span<const std::byte> bytes, Random& random) {
    const Clock::time_point deadline = Clock::now() + kEndLimit;
    std::array<std::byte, 65536> dropped;
    bool saying = true;
    for (;;) {
        if (bytes.empty() && std::exchange(saying, false)) {
            ::shutdown(fd, SHUT_WR);
        }
        pollfd wanted{fd, static_cast<short>(POLLIN | (saying ? POLLOUT : 0)), 0};
        if (::poll(&wanted, 1, 100) == 0 && Clock::now() > deadline) {
            throw std::runtime_error("the connection does not end");
        }
        if ((wanted.revents & POLLOUT) != 0) {
            const std::size_t part = std::min<std::size_t>(bytes.size(), 1 + pick(random, 50'000));
            const ssize_t sent = ::send(fd, bytes.data(), part, MSG_DONTWAIT | MSG_NOSIGNAL);
            bytes = sent > 0 ? bytes.subspan(static_cast<std::size_t>(sent))
                             : (errno == EAGAIN ? bytes : std::span<const std::byte>());
        }
        if ((wanted.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            const ssize_t got = ::recv(fd, dropped.data(), dropped.size(), MSG_DONTWAIT);
            if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
                return;
            }
        }
    }
}

class Fuzz {
  public:
    Fuzz() : done_(::eventfd(0, EFD_CLOEXEC)) {
        const auto add = [&](const char* name, const MemoryDisk& disk, bool read_only) -> Export& {
            ExportOptions options;
            options.name = name;
            options.path = disk.path();
            options.read_only = read_only;
            return exports_.add(std::make_unique<Export>(options, done_.get()));
        };
        served_ = &add("disk", disk_, false);
        add("fixed", fixed_, true);
        add("", fixed_, true);
        static_cast<void>(served_->trackers().add(kTracker, kBlockBytes));
    }

    void round(std::uint64_t seed) {
        Random random(seed);
        const Bytes conversation = make_conversation(random, kDiskBytes);
        const Bytes before = disk_.content();
        std::array<int, 2> pair{};
        check_errno(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()),
                    "cannot make a socket");
        const UniqueFd client(pair[0]);
        check_errno(::fcntl(pair[1], F_SETFL, O_NONBLOCK), "fcntl");
        {
            Connection connection(UniqueFd(pair[1]),
                                  {.id = seed,
                                   .peer = "fuzz",
                                   .handshake_timeout = kEndLimit,
                                   .request_timeout = kEndLimit,
                                   .cpu = -1,
                                   .done_fd = done_.get(),
                                   .memory = &memory_},
                                  exports_);
            connection.start();
            speak(client.get(), conversation, random);
            std::uint64_t count = 0;
            check_errno(static_cast<int>(::read(done_.get(), &count, sizeof(count))), "eventfd");
            if (connection.served() == served_) {
                served_->past.add(connection.statistics());
            }
        }
        check(before);
    }

    [[nodiscard]] std::uint64_t requests() const {
        std::uint64_t sum = 0;
        for (const auto& each : served_->past.requests) {
            sum += each.count.get();
        }
        return sum;
    }

  private:
    void check(const Bytes& before) {
        if (fixed_.content() != Bytes(kDiskBytes)) {
            throw std::runtime_error("a read-only export was written to");
        }
        const Bytes after = disk_.content();
        static_cast<void>(served_->trackers().freeze(kTracker));
        const DirtyMap& dirty = served_->trackers().find(kTracker)->tracker->frozen();
        for (std::uint64_t at = 0; at < kDiskBytes; at += kBlockBytes) {
            const Range block = Range{at, kDiskBytes - at}.first(kBlockBytes);
            if (std::memcmp(&before[at], &after[at], block.length) != 0 &&
                !dirty.next_extent(block).dirty) {
                throw std::runtime_error("block " + std::to_string(at / kBlockBytes) +
                                         " was changed and is not marked");
            }
        }
        // The generations count the rounds: acknowledged, so that each begins clean.
        static_cast<void>(served_->trackers().acknowledge(kTracker, ++rounds_));
    }

    UniqueFd done_;
    // Little, so that connections run out of it.
    MemoryBudget memory_{kMaxAcceptedPayloadBytes};
    MemoryDisk disk_;
    MemoryDisk fixed_;
    ExportTable exports_;
    Export* served_ = nullptr;
    std::uint64_t rounds_ = 0;
};

int run(std::chrono::seconds time, std::uint64_t first_seed) {
    const Clock::time_point end = Clock::now() + time;
    std::uint64_t seed = first_seed;
    try {
        Fuzz fuzz;
        do {
            fuzz.round(seed++);
        } while (Clock::now() < end);
        std::cout << seed - first_seed << " conversations with " << fuzz.requests()
                  << " requests to the writable disk, all sound\n";
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "seed " << seed - 1 << ": " << error.what() << '\n';
        return 1;
    }
}

}  // namespace

}  // namespace nbdm::fuzz

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    nbdm::set_log_level(nbdm::LogLevel::error);
    const std::chrono::seconds time(argc > 1 ? std::atoi(argv[1]) : 10);
    return nbdm::fuzz::run(time, argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
}
