// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "iothread/io_thread.h"

namespace nbdm {

// Places for the clients that wait for a disk to land, of all exports of a server together.
//
// Threads: any.
class WaitingPlaces {
  public:
    explicit WaitingPlaces(std::size_t count) noexcept : free_(count) {}
    // False: all are taken.
    [[nodiscard]] bool take() noexcept {
        std::size_t now = free_.load();
        while (now > 0 && !free_.compare_exchange_weak(now, now - 1)) {
        }
        return now > 0;
    }
    void give_back() noexcept { ++free_; }

  private:
    std::atomic<std::size_t> free_;
};

// Where an incoming export stands: until the mirror that fills it has handed over, only that
// mirror's connections use it, and other clients wait.
//
// Invariant: once it has landed, no mirror's connection enters any more. Each looks at may_enter()
// when it is in the Fence already, and a commit begins before its connection is in there alone.
//
// Threads: any; expect() and set_landed() before the export is served.
class Landing {
  public:
    // A mirror is to come; `record` makes durable that the disk has landed, by which job. It may
    // throw std::system_error or std::runtime_error. `places`: of those who wait; outlives this.
    void expect(std::function<void(const std::string&)> record, WaitingPlaces& places);
    // It has landed, in an earlier process.
    void set_landed(const std::string& job) {
        landed_by_ = job;
        state_.store(State::landed);
    }

    // Clients that are no mirror's have to wait.
    [[nodiscard]] bool expected() const noexcept {
        const State now = state_.load();
        return now == State::expected || now == State::committing;
    }
    [[nodiscard]] bool landed() const noexcept { return state_.load() == State::landed; }
    // Mirrors' connections may come.
    [[nodiscard]] bool may_enter() const noexcept {
        const State now = state_.load();
        return now == State::open || now == State::expected;
    }

    // The mirror hands over; `enter` makes its connection the only one in the Fence and says why it
    // cannot. Returns why nothing came of it; empty when the disk has landed, for good. Of the same
    // job again: nothing is done.
    [[nodiscard]] std::string_view commit(const std::string& job,
                                          const std::function<std::string_view()>& enter);

    // A client that waits, if it is admitted: its thread is woken when it need not any more.
    class Waiting {
      public:
        Waiting(Landing& landing, IoThread& thread);
        Waiting(const Waiting&) = delete;
        Waiting& operator=(const Waiting&) = delete;
        ~Waiting();

        [[nodiscard]] bool admitted() const noexcept { return place_.has_value(); }

      private:
        Landing& landing_;
        std::optional<std::list<IoThread*>::iterator> place_;
    };

  private:
    enum class State { open, expected, committing, landed };
    void wake_waiting() noexcept;

    std::atomic<State> state_{State::open};
    std::function<void(const std::string&)> record_;
    WaitingPlaces* places_ = nullptr;  // set before anybody can wait
    std::string landed_by_;            // set before `state_` says so
    std::mutex mutex_;                 // guards waiting_
    std::list<IoThread*> waiting_;
};

}  // namespace nbdm
