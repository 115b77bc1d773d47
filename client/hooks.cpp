// SPDX-License-Identifier: Apache-2.0
#include "client/hooks.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "client/hook_process.h"
#include "control/log.h"
#include "control/utf8.h"

namespace nbdm {

namespace {

// When as many calls wait, steps that begin and end meanwhile are left out: a job may become ready
// and fall back several times a second.
constexpr std::size_t kMaxWaiting = 16;
// Between two looks at what goes on while the hooks are waited for.
constexpr std::chrono::milliseconds kMeanwhileInterval{100};

bool is_hook_name(const std::string& name) {
    const std::string_view letters =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    return name.find_first_not_of(letters) == std::string::npos;
}

}  // namespace

HookFiles find_hooks(const std::string& directory) {
    HookFiles files;
    std::error_code error;
    for (std::filesystem::directory_iterator each(directory, error), end; !error && each != end;
         each.increment(error)) {
        const std::string name = each->path().filename();
        std::error_code gone;
        if (name.starts_with('.')) {
            continue;
        }
        if (!std::filesystem::is_regular_file(each->path(), gone)) {
            files.ignored.push_back("'" + name + "' is not called: it is not a file");
        } else if (::access(each->path().c_str(), X_OK) != 0) {
            files.ignored.push_back("'" + name + "' is not called: it is not executable");
        } else if (!is_hook_name(name)) {
            files.ignored.push_back("'" + name +
                                    "' is not called: its name has more than letters, digits, '_' "
                                    "and '-'");
        } else {
            files.names.push_back(name);
        }
    }
    if (error) {
        throw std::system_error(error,
                                "cannot look into the directory of hooks '" + directory + "'");
    }
    std::sort(files.names.begin(), files.names.end());
    std::sort(files.ignored.begin(), files.ignored.end());
    return files;
}

Hooks::Hooks(Options options, JobStatus& status, const Cancellation& cancellation)
    : options_(std::move(options)),
      status_(status),
      cancellation_(cancellation),
      job_(status.snapshot().job) {
    if (!options_.directory) {
        return;
    }
    const HookFiles files = find_hooks(*options_.directory);
    for (const std::string& sentence : files.ignored) {
        log_warning("hooks: " + sentence);
    }
    // Where it was left ignored by whoever has started this, no exit status would be known.
    std::signal(SIGCHLD, SIG_DFL);
    thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
}

Hooks::~Hooks() {
    finish();
}

void Hooks::follow(Phase phase) {
    add(steps_.follow(phase), 0);
}

void Hooks::begin(HookStep step, const std::function<void()>& meanwhile) {
    if (!options_.directory) {
        return;
    }
    const std::uint64_t ticket = ++last_ticket_;
    add(steps_.begin(step), ticket);
    try {
        wait_for_answer(ticket, meanwhile);
    } catch (const std::exception&) {
        withdraw(ticket);
        throw;
    }
}

void Hooks::add(std::vector<HookCall> calls, std::uint64_t ticket_of_last) {
    if (!options_.directory || calls.empty()) {
        return;
    }
    const std::string input =
        to_json(status_.snapshot()).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
        "\n";
    const std::lock_guard lock(mutex_);
    for (HookCall& call : calls) {
        const bool last = &call == &calls.back();
        add_locked({.call = std::move(call), .input = input, .ticket = last ? ticket_of_last : 0});
    }
    changed_.notify_all();
}

void Hooks::add_locked(Waiting waiting) {
    if (waiting_.size() >= kMaxWaiting && !waiting.call.begins && waiting_.back().call.begins) {
        waiting_.pop_back();  // of the same step, since another begins only once it has ended
        if (!std::exchange(left_out_, true)) {
            log_warning("hooks: they take so long that some of the job's steps are left out");
        }
        return;
    }
    waiting_.push_back(std::move(waiting));
}

void Hooks::wait_for_answer(std::uint64_t ticket, const std::function<void()>& meanwhile) {
    std::unique_lock lock(mutex_);
    while (
        !changed_.wait_for(lock, kMeanwhileInterval, [&] { return answered_ticket_ == ticket; })) {
        if (cancellation_.requested()) {
            throw Cancelled();
        }
        lock.unlock();
        meanwhile();
        lock.lock();
    }
    if (cancellation_.requested()) {
        throw Cancelled();  // which ends the hook, and is not its refusal
    }
    if (!refusal_.empty()) {
        throw HookRefused(refusal_);
    }
}

void Hooks::withdraw(std::uint64_t ticket) {
    const std::lock_guard lock(mutex_);
    if (std::erase_if(waiting_, [&](const Waiting& each) { return each.ticket == ticket; }) > 0) {
        steps_.forget();
    }
}

void Hooks::finish() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_.empty() && !calling_; });
}

void Hooks::serve(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [&] { return !waiting_.empty(); })) {
        const Waiting now = std::move(waiting_.front());
        waiting_.pop_front();
        calling_ = true;
        lock.unlock();
        std::string refusal;
        try {
            refusal = make(now);
        } catch (const std::exception& error) {
            refusal = std::string("hooks cannot be called: ") + error.what();
        }
        if (now.ticket == 0 && !refusal.empty()) {
            log_warning(refusal);
            refusal.clear();
        }
        lock.lock();
        calling_ = false;
        if (now.ticket != 0) {
            answered_ticket_ = now.ticket;
            refusal_ = as_utf8(refusal);
        }
        changed_.notify_all();
    }
}

std::string Hooks::make(const Waiting& waiting) const {
    const HookCall& call = waiting.call;
    const std::string moment = call.begins ? "begin" : "end";
    const bool may_refuse = waiting.ticket != 0;
    const auto unwanted = [&] { return may_refuse && cancellation_.requested(); };
    HookProgram program{.path = {},
                        .arguments = {job_, call.step, moment, call.status},
                        .input = waiting.input,
                        .timeout = options_.timeout};
    for (const std::string& name : find_hooks(*options_.directory).names) {
        if (unwanted()) {
            break;
        }
        program.path = *options_.directory + "/" + name;
        const std::string head = "hook " + name + ": ";
        const auto say = [&](std::string_view line) { log_info(head + std::string(line)); };
        const HookResult result = run_hook(program, say, unwanted);
        if (result.failure.empty()) {
            continue;
        }
        std::string sentence =
            "hook '" + name + "' at " + call.step + " " + moment + ": " + result.failure;
        if (!may_refuse) {
            log_warning(sentence);
            continue;
        }
        if (!result.last_line.empty()) {
            sentence += ": " + result.last_line;
        }
        return "refused by " + sentence;
    }
    return "";
}

}  // namespace nbdm
