// SPDX-License-Identifier: Apache-2.0
#include "server/fence.h"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <utility>
#include <xxhash.h>

namespace nbdm {

std::optional<SessionName> SessionName::parse(std::string_view context, std::string_view prefix) {
    constexpr std::string_view kLetters =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    constexpr std::size_t kMaxIdBytes = 64;
    if (!context.starts_with(prefix)) {
        return std::nullopt;
    }
    context.remove_prefix(prefix.size());
    const std::string_view id = context.substr(0, context.find(':'));
    if (id.empty() || id.size() > kMaxIdBytes || id.size() == context.size() ||
        id.find_first_not_of(kLetters) != std::string_view::npos) {
        return std::nullopt;
    }
    const std::string_view number = context.substr(id.size() + 1);
    SessionName name{.id = std::string(id)};
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), name.epoch);
    if (error != std::errc() || end != number.data() + number.size()) {
        return std::nullopt;
    }
    return name;
}

std::string_view Fence::why_not(Entered entered) noexcept {
    switch (entered) {
        case Entered::too_late:
            return "later connections of the same mirror have taken this one's place";
        case Entered::still_busy:
            return "earlier connections of the same mirror still have requests under way";
        case Entered::another_session:
            return "another mirror fills this export";
        case Entered::yes:
            break;
    }
    return "";
}

Fence::Membership::Membership(Membership&& other) noexcept
    : fence_(std::exchange(other.fence_, nullptr)),
      member_(std::exchange(other.member_, nullptr)) {}

Fence::Membership& Fence::Membership::operator=(Membership&& other) noexcept {
    if (this != &other) {
        leave();
        fence_ = std::exchange(other.fence_, nullptr);
        member_ = std::exchange(other.member_, nullptr);
    }
    return *this;
}

void Fence::Membership::leave() noexcept {
    if (member_ != nullptr) {
        std::exchange(fence_, nullptr)->leave(*std::exchange(member_, nullptr));
    }
}

Fence::~Fence() {
    for ([[maybe_unused]] const auto& [id, session] : sessions_) {
        assert(session.members.empty());
    }
}

Fence::Entered Fence::enter(const SessionName& name, Others others, IoThread& thread,
                            std::chrono::steady_clock::time_point deadline, Membership& place) {
    // How often the wait looks whether the thread is to stop.
    constexpr std::chrono::milliseconds kStep{50};
    std::unique_lock lock(mutex_);
    const auto patience = std::min(deadline, std::chrono::steady_clock::now() + kOthersMayLeave);
    if (others == Others::refused && last_entered_ != name.id) {
        return Entered::another_session;
    }
    while (others != Others::allowed && others_stand_locked(name.id)) {
        if (others == Others::refused || std::chrono::steady_clock::now() >= patience ||
            thread.stop_requested()) {
            return Entered::another_session;
        }
        left_.wait_for(lock, kStep);
    }
    Session& session = sessions_[name.id];
    session.used = ++entries_;
    if (name.epoch < session.epoch) {
        return Entered::too_late;
    }
    session.epoch = name.epoch;
    Member& own = session.members.emplace_back();
    own.epoch = name.epoch;
    own.thread = &thread;
    Membership entering;
    entering.fence_ = this;
    entering.member_ = &own;
    for (Member& each : session.members) {
        if (each.epoch < name.epoch && !each.shut_out.exchange(true, std::memory_order_acq_rel)) {
            each.thread->request_stop();
        }
    }
    const auto alone = [&] {
        return std::none_of(session.members.begin(), session.members.end(),
                            [&](const Member& each) { return each.epoch < name.epoch; });
    };
    while (!alone() && std::chrono::steady_clock::now() < deadline && !thread.stop_requested()) {
        left_.wait_for(lock, kStep);
    }
    const bool outrun = own.shut_out.load(std::memory_order_acquire);
    const bool entered = alone() && !outrun;
    if (entered && last_entered_ != name.id) {
        if (!last_entered_.empty()) {
            const XXH32_hash_t hash = XXH32(name.id.data(), name.id.size(), seed_ ^ order_);
            order_ = std::max<XXH32_hash_t>(hash, 1);
        }
        last_entered_ = name.id;
    }
    forget_oldest_locked();
    lock.unlock();
    if (entered) {
        place = std::move(entering);
        return Entered::yes;
    }
    return outrun ? Entered::too_late : Entered::still_busy;
}

void Fence::leave(Member& member) noexcept {
    const std::lock_guard lock(mutex_);
    for (auto& [id, session] : sessions_) {
        session.members.remove_if([&](const Member& each) { return &each == &member; });
    }
    left_.notify_all();
}

bool Fence::others_stand_locked(const std::string& id) const {
    return std::any_of(sessions_.begin(), sessions_.end(), [&](const auto& each) {
        return each.first != id && !each.second.members.empty();
    });
}

std::size_t Fence::standing() const {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(
        std::count_if(sessions_.begin(), sessions_.end(),
                      [](const auto& each) { return !each.second.members.empty(); }));
}

void Fence::forget_oldest_locked() {
    std::size_t idle = 0;
    auto oldest = sessions_.end();
    for (auto each = sessions_.begin(); each != sessions_.end(); ++each) {
        if (each->second.members.empty()) {
            ++idle;
            if (oldest == sessions_.end() || each->second.used < oldest->second.used) {
                oldest = each;
            }
        }
    }
    if (idle > kMaxIdleSessions) {
        sessions_.erase(oldest);
    }
}

}  // namespace nbdm
