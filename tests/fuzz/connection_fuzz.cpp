// SPDX-License-Identifier: Apache-2.0
// Clients that say anything to the real connection code. What must hold: each connection ends soon
// after its client has left, a read-only export never changes, and every changed block of a
// writable one is marked in its tracker. Who is honest is answered as the protocol has it, each
// request once, and when all are, each byte of the disk is what one of them has left there.
// Crashes and worse are the sanitizers'.
//
// usage: connection_fuzz [SECONDS [FIRST_SEED]]; a failure names the seed that repeats it.
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
#include <utility>
#include <vector>

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "control/log.h"
#include "iothread/check.h"
#include "server/connection.h"
#include "server/export.h"
#include "tests/fuzz/client.h"
#include "tests/fuzz/content.h"
#include "tests/fuzz/conversation.h"

namespace nbdm::fuzz {

namespace {

using Clock = std::chrono::steady_clock;

// No multiple of 512, so that the disk's end is an edge of its own.
constexpr std::uint64_t kDiskBytes = (256 << 10) + 100;
constexpr std::uint32_t kBlockBytes = 4096;
constexpr std::uint64_t kMostClients = 3;  // at a time
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
        // One liar is enough for nobody to know what has been asked of the disk.
        const Manners manners{.disk_bytes = kDiskBytes, .honest = one_in(random, 2)};
        const std::uint64_t count = 1 + pick(random, kMostClients);
        for (std::uint64_t number = 0; number < count; ++number) {
            auto [near, far] = make_sockets();
            clients_.push_back(std::make_unique<Client>(
                std::move(near), make_conversation(random, manners), content_, Random(random())));
            connections_.push_back(serve(std::move(far), ++conversations_));
        }
        content_.prepare();
        for (const auto& each : connections_) {
            each->start();
        }
        talk(clients_, kEndLimit);
        wait_for_end();
        clients_.clear();
        connections_.clear();
        if (memory_.taken_bytes() != 0) {
            throw std::runtime_error("memory was lost");
        }
        check(manners.honest);
    }

    [[nodiscard]] std::uint64_t conversations() const { return conversations_; }
    [[nodiscard]] std::uint64_t requests() const {
        std::uint64_t sum = 0;
        for (const auto& each : served_->past.requests) {
            sum += each.count.get();
        }
        return sum;
    }

  private:
    static std::pair<UniqueFd, UniqueFd> make_sockets() {
        std::array<int, 2> pair{};
        check_errno(
            ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()),
            "cannot make a socket");
        return {UniqueFd(pair[0]), UniqueFd(pair[1])};
    }

    std::unique_ptr<Connection> serve(UniqueFd socket, std::uint64_t id) {
        return std::make_unique<Connection>(std::move(socket),
                                            Connection::Options{.id = id,
                                                                .peer = "fuzz",
                                                                .handshake_timeout = kEndLimit,
                                                                .request_timeout = kEndLimit,
                                                                .cpu = -1,
                                                                .done_fd = done_.get(),
                                                                .memory = &memory_},
                                            exports_);
    }

    // They have closed their sockets, so that little is left for them to do.
    void wait_for_end() {
        const Clock::time_point deadline = Clock::now() + kEndLimit;
        for (const auto& each : connections_) {
            while (!each->done()) {
                pollfd wait{done_.get(), POLLIN, 0};
                if (::poll(&wait, 1, 100) == 0 && Clock::now() > deadline) {
                    throw std::runtime_error("a connection has closed its socket and does not end");
                }
                std::uint64_t rung = 0;
                [[maybe_unused]] const ssize_t got = ::read(done_.get(), &rung, sizeof(rung));
            }
            if (each->served() == served_) {
                served_->past.add(each->statistics());
            }
        }
    }

    void check(bool honest) {
        if (fixed_.content() != Bytes(kDiskBytes)) {
            throw std::runtime_error("a read-only export was written to");
        }
        const Bytes after = disk_.content();
        check_marks(after);
        if (const auto wrong = content_.first_wrong(after); honest && wrong) {
            throw std::runtime_error("byte " + std::to_string(*wrong) +
                                     " of the disk is not what was written there");
        }
        content_.accept(after);
    }

    void check_marks(const Bytes& after) {
        static_cast<void>(served_->trackers().freeze(kTracker));
        const DirtyMap& dirty = served_->trackers().find(kTracker)->tracker->frozen();
        for (std::uint64_t at = 0; at < kDiskBytes; at += kBlockBytes) {
            const Range block = Range{at, kDiskBytes - at}.first(kBlockBytes);
            if (std::memcmp(&content_.before()[at], &after[at], block.length) != 0 &&
                !dirty.next_extent(block).dirty) {
                throw std::runtime_error("block " + std::to_string(at / kBlockBytes) +
                                         " was changed and is not marked");
            }
        }
        // The generations count the rounds: acknowledged, so that each begins clean.
        static_cast<void>(served_->trackers().acknowledge(kTracker, ++rounds_));
    }

    UniqueFd done_;
    MemoryBudget memory_{MemoryBudget::kMinLimitBytes};
    MemoryDisk disk_;
    MemoryDisk fixed_;
    Content content_{kDiskBytes};
    ExportTable exports_;
    Export* served_ = nullptr;
    std::vector<std::unique_ptr<Connection>> connections_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::uint64_t conversations_ = 0;
    std::uint64_t rounds_ = 0;
};

int run(std::chrono::seconds time, std::uint64_t first_seed) {
    const Clock::time_point end = Clock::now() + time;
    std::uint64_t seed = first_seed;
    Fuzz fuzz;
    try {
        do {
            fuzz.round(seed++);
        } while (Clock::now() < end);
        std::cout << fuzz.conversations() << " conversations with " << fuzz.requests()
                  << " requests to the writable disk, all sound\n";
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "seed " << seed - 1 << ": " << error.what() << std::endl;
        std::_Exit(1);  // a connection that does not end cannot be waited for
    }
}

}  // namespace

}  // namespace nbdm::fuzz

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    nbdm::set_log_level(nbdm::LogLevel::error);
    const std::chrono::seconds time(argc > 1 ? std::atoi(argv[1]) : 10);
    try {
        return nbdm::fuzz::run(time, argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
    } catch (const std::exception& error) {
        std::cerr << "cannot begin: " << error.what() << '\n';
        return 1;
    }
}
