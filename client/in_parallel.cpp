// SPDX-License-Identifier: Apache-2.0
#include "client/in_parallel.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace nbdm {

namespace {

constexpr std::chrono::milliseconds kTickInterval{20};

}  // namespace

void in_parallel(std::size_t count,
                 const std::function<void(std::size_t, const std::stop_token&)>& work,
                 const std::function<void()>& tick) {
    std::mutex mutex;  // guards what follows
    std::condition_variable changed;
    std::size_t running = 0;
    std::exception_ptr cause;

    std::stop_source stop;
    const auto fail = [&] {  // with the mutex
        if (!cause) {
            cause = std::current_exception();
        }
        stop.request_stop();
    };
    {
        std::vector<std::jthread> threads;
        std::unique_lock lock(mutex);
        try {
            for (std::size_t i = 0; i < count; ++i) {
                threads.emplace_back([&, i] {
                    try {
                        work(i, stop.get_token());
                    } catch (const std::exception&) {
                        const std::lock_guard failed(mutex);
                        fail();
                    }
                    const std::lock_guard done(mutex);
                    --running;
                    changed.notify_one();
                });
                ++running;
            }
        } catch (const std::exception&) {
            fail();
        }
        while (!changed.wait_for(lock, kTickInterval, [&] { return running == 0; })) {
            if (cause) {
                continue;
            }
            lock.unlock();
            try {
                tick();
                lock.lock();
            } catch (const std::exception&) {
                lock.lock();
                fail();
            }
        }
    }
    if (cause) {
        std::rethrow_exception(cause);
    }
}

}  // namespace nbdm
