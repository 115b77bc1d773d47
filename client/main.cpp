// SPDX-License-Identifier: Apache-2.0
// nbd-mirror: moves virtual disks between NBD servers while they are in use.
#include <csignal>
#include <exception>
#include <iostream>
#include <stdexcept>

#include "client/copy.h"
#include "client/job_commands.h"
#include "client/job_control.h"
#include "client/job_runner.h"
#include "client/mirror.h"
#include "client/options.h"
#include "client/watch/watch.h"
#include "iothread/event_fd.h"

namespace {

using namespace nbdm;

// The exit statuses of the interface.
constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kDifferent = 3;
constexpr int kCancelled = 4;

int say(int status, const std::string& line) {
    std::cerr << "nbd-mirror: " << line << '\n';
    return status;
}

int end(const JobRunner::Result& result) {
    switch (result.phase) {
        case Phase::done:
            return kDone;
        case Phase::cancelled:
            return say(kCancelled, result.line);
        default:
            return say(kFailed, result.line);
    }
}

int run(const CopyCommand& command) {
    JobRunner runner("copy", {{command.options.source.text, command.options.target.text}},
                     command.progress);
    runner.limits().apply(command.limits);
    const JobRunner::Result result = runner.run([&] {
        return copy_disk(command.options, runner.status(), runner.limits().pace(),
                         runner.cancellation());
    });
    if (result.phase != Phase::done && sum_of_disks(runner.status().snapshot()).moved_bytes > 0) {
        return end({result.phase,
                    result.line + "; target " + command.options.target.text + " is not complete"});
    }
    if (result.phase == Phase::done && command.progress == ProgressStyle::bar) {
        std::cout << result.line << '\n';
    }
    return end(result);
}

int run(const VerifyCommand& command) {
    JobRunner runner("verify", {{command.options.source.text, command.options.target.text}},
                     command.progress);
    bool equal = true;
    const JobRunner::Result result = runner.run([&] {
        const auto differences = compare_disks(command.options, runner.status(),
                                               runner.limits().pace(), runner.cancellation());
        equal = differences.empty();
        return equal ? std::string("equal") : describe_differences(differences);
    });
    if (result.phase != Phase::done) {
        return end(result);
    }
    std::cout << result.line << '\n';
    return equal ? kDone : kDifferent;
}

int run(const MirrorCommand& command) {
    MirrorOptions options = command.options;
    if (options.resume) {
        options.disks = as_recorded(options.job, options.disks);
    }
    std::vector<DiskEnds> disks;
    for (const DiskMirror::Options& disk : options.disks) {
        disks.push_back({disk.copy.source.text, disk.copy.target.text});
    }
    JobRunner runner(options.job, std::move(disks), command.progress);
    const UniqueFd outcome_fd = make_event_fd();
    runner.limits().apply(command.limits);
    CutoverRequests cutovers(outcome_fd.get());
    Mirror mirror(options, runner.status(), runner.limits(), cutovers, runner.cancellation());
    JobControl control(runner, cutovers, options.job, outcome_fd.get());
    const JobRunner::Result result = runner.run([&] { return mirror.run(); });
    control.finish();
    if (result.phase == Phase::done) {
        std::cout << result.line << '\n';
    }
    return end(result);
}

int run(const StatusCommand& command) {
    return command.watch ? watch_jobs(command.job, command.json)
                         : show_status(command.job, command.json);
}

int run(const JobCommand& command) {
    return tell_job(command);
}

int run(const SetCommand& command) {
    return set_limits(command);
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    try {
        const std::optional<Command> command = parse_command_line(argc, argv);
        return command ? std::visit([](const auto& chosen) { return run(chosen); }, *command)
                       : kDone;
    } catch (const std::invalid_argument& error) {
        return say(kUsage, error.what());
    } catch (const std::exception& error) {
        return say(kFailed, error.what());
    }
}
