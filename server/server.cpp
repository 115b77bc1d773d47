// SPDX-License-Identifier: Apache-2.0
#include "server/server.h"

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <utility>

#include "control/log.h"
#include "iothread/check.h"
#include "iothread/event_fd.h"
#include "server/descriptor_limit.h"

namespace nbdm {

namespace {

// After a disk has moved away, its clients' writes are answered with NBD_ESHUTDOWN for this long
// before the connections are closed, so that every writer learns why.
constexpr timeval kRetireLinger{5, 0};
// At the stop, clients that do not take their answers are cut off after this long.
constexpr timeval kDrainTime{5, 0};

}  // namespace

Server::Server(event_base* base, ServerOptions options, std::vector<UniqueFd> inherited)
    : base_(base),
      options_(std::move(options)),
      ownership_(options_.state_dir),
      kept_trackers_(options_.state_dir),
      max_connections_(affordable_connections(options_.max_connections, options_.exports.size())),
      waiting_places_(max_connections_ / 2),
      done_fd_(make_event_fd()),
      drained_fd_(make_event_fd()),
      hand_overs_(
          base_, ownership_, [this](const Export& served) -> Hold& { return hold_of(served); },
          [this](const auto& moved) { settled(moved); }),
      memory_(options_.buffer_bytes, max_connections_) {
    ownership_.settle();
    for (const ExportOptions& each : options_.exports) {
        open_export(each);
    }
    // One disk that has moved away must not keep the others from being served.
    if (!moved_.empty() && moved_.size() == exports_.all().size()) {
        throw std::runtime_error(moved_.front());
    }
    for (const std::string& sentence : moved_) {
        log_warning(sentence + "; until then it is read-only");
    }
    watch(done_fd_.get(),
          [](evutil_socket_t, short, void* self) { static_cast<Server*>(self)->reap(); });
    watch(drained_fd_.get(),
          [](evutil_socket_t, short, void* self) { static_cast<Server*>(self)->check_holds(); });
    const auto accept = [this](UniqueFd socket, std::string peer) {
        accepted(std::move(socket), std::move(peer));
    };
    for (UniqueFd& socket : inherited) {
        listeners_.push_back(std::make_unique<Listener>(base_, std::move(socket), accept));
    }
    for (const ListenAddress& address : options_.listen) {
        listeners_.push_back(with_hint("--listen names another address", [&] {
            return std::make_unique<Listener>(base_, address, accept);
        }));
    }
}

void Server::announce() const {
    try {
        ownership_.prepare_for_moves();
    } catch (const std::runtime_error& error) {
        log_warning(std::string("no disk can be handed over from here: ") + error.what());
    }
    for (const auto& listener : listeners_) {
        for (const std::string& bound : listener->addresses()) {
            log_info("listening on " + bound);
        }
    }
}

Server::~Server() {
    for (Connection& connection : connections_) {
        connection.request_stop();
        connection.abandon();
    }
}

std::unique_ptr<Export> Server::make_export(const ExportOptions& options) const {
    try {
        return std::make_unique<Export>(options, drained_fd_.get());
    } catch (const std::system_error& error) {
        if (error.code() != std::errc::device_or_resource_busy) {
            throw;
        }
        for (const auto& other : exports_.all()) {
            std::error_code ignored;
            if (std::filesystem::equivalent(options.path, other->options().path, ignored)) {
                throw std::invalid_argument("exports '" + other->name() + "' and '" + options.name +
                                            "' are one disk, '" + options.path +
                                            "'; only read-only exports can share one");
            }
        }
        throw;
    }
}

void Server::open_export(const ExportOptions& options) {
    Export& opened = exports_.add(make_export(options));
    holds_.emplace(&opened, std::make_unique<Hold>(base_, opened));
    if (options.read_only) {
        say_where_it_is(opened);
        return;
    }
    const std::optional<MoveRecord> moved = ownership_.find(opened.file());
    if (options.incoming) {
        open_incoming(opened, moved.has_value());
        return;
    }
    if (!moved) {
        return;
    }
    const auto& taken = options_.take_ownership;
    if (std::ranges::find(taken, options.name) != taken.end()) {
        taken_.push_back(&opened);
        return;
    }
    opened.gate().retire();
    hand_overs_.set_moved(opened, *moved);
    moved_.push_back(moved_sentence(opened, *moved) +
                     "; it can be served with ',ro', or for writing again with --take-ownership '" +
                     options.name + "'");
}

// A mirror that died before it had told its target may be resumed, and asks.
void Server::say_where_it_is(Export& only_read) {
    try {
        if (const std::optional<MoveRecord> moved = ownership_.find(only_read.file())) {
            only_read.gate().retire();
            hand_overs_.set_moved(only_read, *moved);
        }
    } catch (const std::runtime_error& error) {
        log_warning(only_read.quoted() + " may have moved away: " + error.what());
    }
}

// A disk that has moved away may come back this way.
void Server::open_incoming(Export& opened, bool moved_away) {
    // Before the source hands over: it must not turn out afterwards that nothing can be recorded.
    ownership_.prepare_for_arrivals();
    if (opened.file().created()) {
        ownership_.forget_arrival(opened.file());
    }
    const std::optional<ArrivalRecord> arrived = ownership_.find_arrival(opened.file());
    if (arrived && !moved_away) {
        log_info(opened.quoted() + " has landed already, at " + arrived->arrived_at + " (mirror '" +
                 arrived->job + "'), as '" + arrived->path + "' records: its guest may use it");
        opened.landing().set_landed(arrived->job);
        return;
    }
    opened.landing().expect(
        [this, &opened](const std::string& job) {
            ownership_.record_arrival(opened, job);
            log_info(opened.quoted() + " ('" + opened.file().path() + "') has landed (mirror '" +
                     job + "')");
        },
        waiting_places_);
}

void Server::take_ownership() {
    for (const Export* each : taken_) {
        ownership_.take_back(each->file());
        log_warning(each->quoted() + ": ownership is taken back");
    }
}

void Server::restore_trackers() {
    for (const auto& each : exports_.all()) {
        // What is tracked of a disk that moves away is no use: its copies go their own ways.
        const bool moves = each->gate().retired() ||
                           std::find(taken_.begin(), taken_.end(), each.get()) != taken_.end();
        if (moves) {
            kept_trackers_.drop(*each);
        } else {
            kept_trackers_.restore(*each);
        }
    }
}

void Server::watch(int fd, event_callback_fn handler) {
    EventPointer made(event_new(base_, fd, EV_READ | EV_PERSIST, handler, this));
    event_add(made.get(), nullptr);
    watches_.push_back(std::move(made));
}

void Server::accepted(UniqueFd socket, std::string peer) {
    if (connections_.size() >= max_connections_) {
        log_warning("client " + peer + " is turned away: there are " +
                    std::to_string(connections_.size()) + " connections already");
        return;
    }
    const std::uint64_t id = next_connection_++;
    const int cpu = options_.cpus.empty() ? -1 : options_.cpus[id % options_.cpus.size()];
    try {
        Connection& made = connections_.emplace_back(
            std::move(socket),
            Connection::Options{.id = id,
                                .peer = std::move(peer),
                                .handshake_timeout = options_.handshake_timeout,
                                .request_timeout = options_.request_timeout,
                                .cpu = cpu,
                                .done_fd = done_fd_.get(),
                                .memory = &memory_},
            exports_);
        made.start();
    } catch (const std::system_error& error) {
        log_error(std::string("cannot serve a client: ") + error.what());
        connections_.remove_if([&](const Connection& each) { return each.id() == id; });
    }
}

void Server::reap() {
    clear_event_fd(done_fd_.get());
    connections_.remove_if([](const Connection& each) {
        if (!each.done()) {
            return false;
        }
        if (each.served() != nullptr) {
            Export& served = *each.served();
            (each.background() ? served.past_in_background : served.past).add(each.statistics());
        }
        return true;
    });
    end_when_drained();
}

bool Server::is_drained() const {
    return draining_ && connections_.empty() && !hand_overs_.under_way();
}

void Server::end_when_drained() {
    if (is_drained()) {
        event_base_loopbreak(base_);
    }
}

void Server::check_holds() {
    clear_event_fd(drained_fd_.get());
    for (const auto& [served, hold] : holds_) {
        hold->check_drained();
    }
}

void Server::drain() {
    if (std::exchange(draining_, true)) {
        return;
    }
    for (const auto& listener : listeners_) {
        listener->stop_accepting();
    }
    abandon_holds();
    for (Connection& connection : connections_) {
        connection.request_stop();
    }
    if (is_drained()) {
        event_base_loopbreak(base_);
        return;
    }
    log_info(status());
    drain_timer_.reset(evtimer_new(
        base_,
        [](evutil_socket_t, short, void* self) {
            auto& server = *static_cast<Server*>(self);
            for (Connection& connection : server.connections_) {
                connection.abandon();
            }
            if (server.hand_overs_.under_way()) {
                log_warning(server.status());
            }
        },
        this));
    evtimer_add(drain_timer_.get(), &kDrainTime);
}

void Server::keep_trackers() const {
    if (!connections_.empty()) {
        return;
    }
    for (const auto& each : exports_.all()) {
        kept_trackers_.save(*each);
    }
}

std::vector<std::string> Server::uris(const Export& served) const {
    std::vector<std::string> result;
    for (const auto& listener : listeners_) {
        const auto some = listener->uris(served.name());
        result.insert(result.end(), some.begin(), some.end());
    }
    return result;
}

std::string Server::status() const {
    const auto count = [](std::size_t number, const std::string& what) {
        return std::to_string(number) + " " + what + (number == 1 ? "" : "s");
    };
    const std::string clients = count(connections_.size(), "client");
    if (!draining_) {
        return "serving " + count(exports_.all().size(), "export") + " to " + clients;
    }
    const char* record = hand_overs_.may_be_durable()
                             ? ", and the record of a hand-over: whether its disks have moved is "
                               "not known before"
                         : hand_overs_.under_way() ? ", and the storage of the state directory"
                                                   : "";
    return "stopping, waiting for " + clients + record;
}

std::size_t Server::connections_to(const Export& served) const {
    return static_cast<std::size_t>(
        std::count_if(connections_.begin(), connections_.end(),
                      [&](const Connection& each) { return each.served() == &served; }));
}

void Server::add_statistics(const Export& served, Clients which, Statistics& sum) const {
    sum.add(served.past);
    if (which == Clients::all) {
        sum.add(served.past_in_background);
    }
    for (const Connection& each : connections_) {
        if (each.served() == &served && (which == Clients::all || !each.background())) {
            sum.add(each.statistics());
        }
    }
}

Hold& Server::hold_of(const Export& served) {
    return *holds_.at(&served);
}

void Server::settled(const std::vector<HandOvers::Disk>& moved) {
    for (const HandOvers::Disk& each : moved) {
        disconnect_clients_of(each.moved);
        log_info(hand_overs_.moved_sentence(each.moved));
    }
    if (draining_) {
        abandon_holds();  // of a hand-over that came to nothing
    }
    end_when_drained();
}

// What waits is owed an answer before the end.
void Server::abandon_holds() {
    for (const auto& [served, hold] : holds_) {
        hold->abandon();
    }
}

void Server::disconnect_clients_of(const Export& served) {
    Farewell& farewell =
        farewells_.emplace_back(Farewell{*this, served, next_connection_, nullptr});
    const event_callback_fn say = [](evutil_socket_t, short, void* argument) {
        const auto& due = *static_cast<const Farewell*>(argument);
        for (Connection& connection : due.server.connections_) {
            if (connection.served() == &due.served && connection.id() < due.before) {
                connection.request_stop();
            }
        }
    };
    farewell.timer.reset(evtimer_new(base_, say, &farewell));
    evtimer_add(farewell.timer.get(), &kRetireLinger);
}

}  // namespace nbdm
