// SPDX-License-Identifier: Apache-2.0
// Clients that say anything to the real connection code, while the export is held, slowed down and
// let go, and connections are told to stop. What must hold: each connection ends soon after its
// client has left, its memory comes back, a read-only export never changes, and every changed block
// of a writable one is marked in its tracker. Who is honest is answered as the protocol has it,
// each request once, and when all are, each byte of the disk is what one of them has left there.
// Crashes and worse are the sanitizers'.
//
// usage: connection_fuzz cached|direct|scarce|scarce-direct [SECONDS [FIRST_SEED]]; a failure names
// the seed that repeats it, as far as threads do. Exit 77: the storage for it is not to be had
// here.
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
#include <span>
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
#include "tests/fuzz/meddler.h"

namespace nbdm::fuzz {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kBlockBytes = 4096;
constexpr std::chrono::seconds kEndLimit{30};
const std::string kTracker = "t";

// No multiples of 512, so that a disk's end is an edge of its own. Of the smallest budget that a
// server may have, a request for all of the large one takes most, since it takes a power of two.
constexpr std::uint64_t kSmallDiskBytes = (256 << 10) + 100;
constexpr std::uint64_t kLargeDiskBytes = (34 << 20) + 100;

struct Scene {
    std::string_view name;
    bool direct = false;  // without the page cache
    bool scarce = false;  // clients want more memory than there is, all at once

    [[nodiscard]] std::uint64_t disk_bytes() const {
        return scarce ? kLargeDiskBytes : kSmallDiskBytes;
    }
    [[nodiscard]] std::uint64_t some_clients(Random& random) const {
        return scarce ? 3 + pick(random, 4) : 1 + pick(random, 3);
    }
    [[nodiscard]] Temper some_temper(Random& random, bool meddled) const {
        return {.rests = scarce ? 3U : 0U,
                .lingers = scarce && !one_in(random, 3),
                .flighty = one_in(random, 6),
                .stays = meddled};
    }
};
constexpr std::array<Scene, 4> kScenes = {
    {{.name = "cached"},
     {.name = "direct", .direct = true},
     {.name = "scarce", .scarce = true},
     {.name = "scarce-direct", .direct = true, .scarce = true}}};

class Fuzz {
  public:
    // The disks are fit for the scene.
    Fuzz(const Scene& scene, Disk disk, Disk fixed)
        : scene_(scene),
          done_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
          disk_(std::move(disk)),
          fixed_(std::move(fixed)) {
        const auto add = [&](const char* name, const Disk& on, bool read_only) -> Export& {
            ExportOptions options;
            options.name = name;
            options.path = on.path();
            options.cache = scene.direct ? CacheMode::direct : CacheMode::writeback;
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
        const Manners manners{.disk_bytes = scene_.disk_bytes(),
                              .honest = one_in(random, 2),
                              .greedy = scene_.scarce};
        const bool meddled = one_in(random, 2);
        if (scene_.scarce && one_in(random, 4)) {
            disk_.clear();
            content_.clear();
        }
        for (std::uint64_t more = scene_.some_clients(random); more > 0; --more) {
            add_client(make_conversation(random, manners), meddled, random);
        }
        content_.prepare();
        for (const auto& each : connections_) {
            each->start();
        }
        // What is stopped does not answer everything: where honest clients count on that, none is.
        std::optional<Meddler> meddler;
        if (meddled) {
            using All = std::span<const std::unique_ptr<Connection>>;
            meddler.emplace(*served_, manners.honest ? All() : All(connections_), Random(random()));
        }
        bool short_of_memory = false;
        talk(clients_, kEndLimit,
             [&] { short_of_memory = short_of_memory || memory_.waiting_count() > 0; });
        short_rounds_ += short_of_memory ? 1 : 0;
        wait_for_end();
        meddler.reset();
        clients_.clear();
        connections_.clear();
        if (memory_.taken_bytes() != 0) {
            throw std::runtime_error("memory was lost");
        }
        check(manners.honest);
    }

    [[nodiscard]] std::uint64_t conversations() const { return conversations_; }
    [[nodiscard]] std::uint64_t rounds() const { return rounds_; }
    // In which somebody waited for memory.
    [[nodiscard]] std::uint64_t short_rounds() const { return short_rounds_; }
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

    void add_client(Conversation conversation, bool meddled, Random& random) {
        auto [near, far] = make_sockets();
        const Temper temper = scene_.some_temper(random, meddled);
        clients_.push_back(std::make_unique<Client>(std::move(near), std::move(conversation),
                                                    content_, temper, Random(random())));
        connections_.push_back(
            std::make_unique<Connection>(std::move(far),
                                         Connection::Options{.id = ++conversations_,
                                                             .peer = "fuzz",
                                                             .handshake_timeout = kEndLimit,
                                                             .request_timeout = kEndLimit,
                                                             .cpu = -1,
                                                             .done_fd = done_.get(),
                                                             .memory = &memory_},
                                         exports_));
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
        fixed_.read(seen_);
        if (seen_[0] != std::byte{0} ||
            std::memcmp(&seen_[0], &seen_[1], seen_.size() - 1) != 0) {  // all are as the first
            throw std::runtime_error("a read-only export was written to");
        }
        disk_.read(seen_);
        check_marks();
        if (const auto wrong = content_.first_wrong(seen_); honest && wrong) {
            throw std::runtime_error("byte " + std::to_string(*wrong) +
                                     " of the disk is not what was written there");
        }
        content_.accept(seen_);
    }

    void check_marks() {
        static_cast<void>(served_->trackers().freeze(kTracker));
        const DirtyMap& dirty = served_->trackers().find(kTracker)->tracker->frozen();
        for (std::uint64_t at = 0; at < seen_.size(); at += kBlockBytes) {
            const Range block = Range{at, seen_.size() - at}.first(kBlockBytes);
            if (std::memcmp(&content_.before()[at], &seen_[at], block.length) != 0 &&
                !dirty.next_extent(block).dirty) {
                throw std::runtime_error("block " + std::to_string(at / kBlockBytes) +
                                         " was changed and is not marked");
            }
        }
        // The generations count the rounds: acknowledged, so that each begins clean.
        static_cast<void>(served_->trackers().acknowledge(kTracker, ++rounds_));
    }

    const Scene& scene_;
    UniqueFd done_;
    MemoryBudget memory_{MemoryBudget::kMinLimitBytes, 4};
    Disk disk_;
    Disk fixed_;
    Bytes seen_;
    Content content_{scene_.disk_bytes()};
    ExportTable exports_;
    Export* served_ = nullptr;
    std::vector<std::unique_ptr<Connection>> connections_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::uint64_t conversations_ = 0;
    std::uint64_t rounds_ = 0;
    std::uint64_t short_rounds_ = 0;
};

// Nothing where no storage is fit for it.
std::optional<Disk> make_disk(const Scene& scene) {
    return scene.direct ? Disk::for_direct_io(scene.disk_bytes())
                        : Disk::in_memory(scene.disk_bytes());
}

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
    } catch (const std::exception& error) {
        std::cerr << "seed " << seed - 1 << ": " << error.what() << std::endl;
        std::_Exit(1);  // a connection that does not end cannot be waited for
    }
    std::cout << fuzz.conversations() << " conversations with " << fuzz.requests()
              << " requests to the writable disk, all sound; short of memory in "
              << fuzz.short_rounds() << " of " << fuzz.rounds() << " rounds\n";
    if (scene.scarce && fuzz.rounds() >= 20 && fuzz.short_rounds() == 0) {
        std::cerr << "nobody ever waited for memory: nothing of what this run is for was seen\n";
        return 1;
    }
    return 0;
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
        std::cerr
            << "usage: connection_fuzz cached|direct|scarce|scarce-direct [SECONDS [FIRST_SEED]]\n";
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
