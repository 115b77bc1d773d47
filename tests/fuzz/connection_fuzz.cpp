// SPDX-License-Identifier: Apache-2.0
// Clients that say anything to the real connection code. What must hold: each connection ends soon
// after its client has left, a read-only export never changes, and every changed block of a
// writable one is marked in its tracker. Who is honest is answered as the protocol has it, each
// request once, and when all are, each byte of the disk is what one of them has left there.
// Crashes and worse are the sanitizers'.
//
// usage: connection_fuzz cached|direct [SECONDS [FIRST_SEED]]; a failure names the seed that
// repeats it, as far as threads do. Exit 77: the storage for it is not to be had here.
#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

#include <sys/eventfd.h>
#include <sys/socket.h>

#include "control/log.h"
#include "iothread/check.h"
#include "server/connection.h"
#include "server/export.h"
#include "tests/fuzz/client.h"
#include "tests/fuzz/content.h"
#include "tests/fuzz/conversation.h"
#include "tests/fuzz/disk.h"

namespace nbdm::fuzz {

namespace {

using Clock = std::chrono::steady_clock;

// No multiple of 512, so that the disk's end is an edge of its own.
constexpr std::uint64_t kDiskBytes = (256 << 10) + 100;
constexpr std::uint32_t kBlockBytes = 4096;
constexpr std::uint64_t kMostClients = 3;  // at a time
constexpr std::chrono::seconds kEndLimit{30};
const std::string kTracker = "t";

// What the clients are let loose on.
struct Scene {
    std::string_view name;
    CacheMode cache = CacheMode::writeback;
};
constexpr std::array<Scene, 2> kScenes = {
    {{.name = "cached"}, {.name = "direct", .cache = CacheMode::direct}}};

// Nothing where no storage is fit for it.
std::optional<Disk> make_disk(const Scene& scene) {
    return scene.cache == CacheMode::direct ? Disk::for_direct_io(kDiskBytes)
                                            : Disk::in_memory(kDiskBytes);
}

class Fuzz {
  public:
    Fuzz(const Scene& scene, Disk disk, Disk fixed)
        : done_(::eventfd(0, EFD_CLOEXEC)), disk_(std::move(disk)), fixed_(std::move(fixed)) {
        const auto add = [&](const char* name, const Disk& on, bool read_only) -> Export& {
            ExportOptions options;
            options.name = name;
            options.path = on.path();
            options.cache = scene.cache;
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
        Bytes after(kDiskBytes);
        fixed_.read(after);
        if (after != Bytes(kDiskBytes)) {
            throw std::runtime_error("a read-only export was written to");
        }
        disk_.read(after);
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
    Disk disk_;
    Disk fixed_;
    Content content_{kDiskBytes};
    ExportTable exports_;
    Export* served_ = nullptr;
    std::vector<std::unique_ptr<Connection>> connections_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::uint64_t conversations_ = 0;
    std::uint64_t rounds_ = 0;
};

int run(const Scene& scene, std::chrono::seconds time, std::uint64_t first_seed) {
    std::optional<Disk> disk = make_disk(scene);
    std::optional<Disk> fixed = make_disk(scene);
    if (!disk || !fixed) {
        std::cout << "skipped: neither /var/tmp nor the temporary directory takes O_DIRECT\n";
        return 77;
    }
    const Clock::time_point end = Clock::now() + time;
    std::uint64_t seed = first_seed;
    Fuzz fuzz(scene, std::move(*disk), std::move(*fixed));
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
    const auto& scenes = nbdm::fuzz::kScenes;
    const auto scene = std::find_if(scenes.begin(), scenes.end(), [&](const auto& each) {
        return argc > 1 && each.name == argv[1];
    });
    if (scene == scenes.end()) {
        std::cerr << "usage: connection_fuzz cached|direct [SECONDS [FIRST_SEED]]\n";
        return 2;
    }
    const std::chrono::seconds time(argc > 2 ? std::atoi(argv[2]) : 10);
    try {
        return nbdm::fuzz::run(*scene, time, argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1);
    } catch (const std::exception& error) {
        std::cerr << "cannot begin: " << error.what() << '\n';
        return 1;
    }
}
