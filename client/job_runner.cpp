// SPDX-License-Identifier: Apache-2.0
#include "client/job_runner.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <thread>
#include <utility>

#include "iothread/event_fd.h"

namespace nbdm {

namespace {

constexpr timeval kShowInterval{0, 500'000};
// How long a signal may have to wait for a reader.
constexpr std::chrono::milliseconds kReaderInterval(50);

}  // namespace

JobRunner::JobRunner(std::string job, std::vector<DiskEnds> disks, ProgressStyle style)
    : base_(event_base_new()),
      changed_fd_(make_event_fd()),
      status_(std::move(job), std::move(disks), changed_fd_.get()),
      printer_(style) {
    const auto signal = [](evutil_socket_t, short, void* self) {
        static_cast<JobRunner*>(self)->signalled();
    };
    const auto changed = [](evutil_socket_t, short, void* self) {
        auto* runner = static_cast<JobRunner*>(self);
        clear_event_fd(runner->changed_fd_.get());
        const bool ended = runner->ended_.load(std::memory_order_acquire);
        runner->show();
        if (ended) {
            event_base_loopbreak(runner->base_.get());
        }
    };
    const auto tick = [](evutil_socket_t, short, void* self) {
        auto* runner = static_cast<JobRunner*>(self);
        runner->limits_.refresh(std::time(nullptr));
        runner->show();
        runner->printer_.show(runner->status_.snapshot());
    };
    // libevent puts these back when the loop has ended: the job is over then, and its exit status
    // is still to be told.
    std::signal(SIGINT, SIG_IGN);
    std::signal(SIGTERM, SIG_IGN);
    watch(SIGINT, EV_SIGNAL | EV_PERSIST, signal);
    watch(SIGTERM, EV_SIGNAL | EV_PERSIST, signal);
    watch(changed_fd_.get(), EV_READ | EV_PERSIST, changed);
    events_.emplace_back(event_new(base_.get(), -1, EV_PERSIST, tick, this));
    event_add(events_.back().get(), &kShowInterval);
}

void JobRunner::watch(int fd, short events, event_callback_fn call) {
    events_.emplace_back(event_new(base_.get(), fd, events, call, this));
    event_add(events_.back().get(), nullptr);
}

void JobRunner::signalled() {
    if (ended_.load(std::memory_order_acquire)) {
        signalled_since_ = true;
        return;
    }
    // A hand-over under way is finished or given up, within seconds, and one that is done is
    // reported: nobody could say which it was. Nor are its hooks left out.
    const Phase phase = status_.phase();
    if (cancellation_.requested() && (phase < Phase::cutting_over || phase == Phase::cancelled)) {
        show();  // so that it is on record
        [[maybe_unused]] const bool read = printer_.flush(kReaderInterval);
        constexpr int kCancelled = 4;
        std::_Exit(kCancelled);
    }
    cancellation_.request();
}

void JobRunner::show() {
    for (const JobSnapshot& snapshot : status_.take_phase_changes()) {
        printer_.show_phase_change(snapshot);
        if (phase_changed_) {
            phase_changed_(snapshot);
        }
    }
    status_.phase_changes_recorded();
}

JobRunner::Result JobRunner::run(const std::function<std::string()>& work) {
    Result result;
    std::jthread thread([&] {
        try {
            result.line = work();
            result.phase = Phase::done;
        } catch (const Cancelled&) {
            result = {.phase = Phase::cancelled, .line = "cancelled"};
        } catch (const std::exception& error) {
            result = {.phase = Phase::failed, .line = error.what()};
        }
        if (result.phase == Phase::failed) {
            status_.set_error(result.line);
        }
        status_.set_phase(result.phase);
        ended_.store(true, std::memory_order_release);
        ring_event_fd(changed_fd_.get());
    });
    event_base_dispatch(base_.get());
    thread.join();
    event_del(events_.back().get());  // the tick: nothing is shown behind the last line
    printer_.finish(status_.snapshot());
    return result;
}

void JobRunner::print(const std::string& line) {
    wait_for_readers();  // on a terminal, what comes first must stand first
    printer_.print(line);
    wait_for_readers();
}

void JobRunner::print_error(const std::string& line) {
    wait_for_readers();
    say_line(line);
    wait_for_readers();
}

void JobRunner::wait_for_readers() {
    while (!printer_.flush(kReaderInterval) && !signalled_since_) {
        event_base_loop(base_.get(), EVLOOP_NONBLOCK);
    }
}

}  // namespace nbdm
