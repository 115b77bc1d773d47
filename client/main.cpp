// SPDX-License-Identifier: Apache-2.0
// nbd-mirror: moves virtual disks between NBD servers while they are in use.
#include <csignal>
#include <exception>
#include <iostream>
#include <stdexcept>

#include "client/copy.h"
#include "client/differences.h"
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

std::string own(const std::string& line) {
    return "nbd-mirror: " + line;
}

// To be called when nothing is left to be said but why it has failed.
int end(JobRunner& runner, const JobRunner::Result& result) {
    switch (result.phase) {
        case Phase::done:
            runner.wait_for_readers();
            return kDone;
        case Phase::cancelled:
            runner.print_error(own(result.line));
            return kCancelled;
        default:
            runner.print_error(own(result.line));
            return kFailed;
    }
}

int run(const CopyCommand& command) {
    JobRunner runner("copy", {{command.options.source.text, command.options.target.text}},
                     command.progress);
    runner.limits().apply(command.limits);
    JobRunner::Result result = runner.run([&] {
        return copy_disk(command.options, runner.status(), runner.limits().pace(),
                         runner.cancellation());
    });
    if (result.phase != Phase::done && sum_of_disks(runner.status().snapshot()).moved_bytes > 0) {
        result.line += "; target " + command.options.target.text + " is not complete";
    }
    if (result.phase == Phase::done && command.progress == ProgressStyle::bar) {
        runner.print(result.line);
    }
    return end(runner, result);
}

int run(const VerifyCommand& command) {
    JobRunner runner("verify", {{command.options.source.text, command.options.target.text}},
                     command.progress);
    bool equal = true;
    const JobRunner::Result result = runner.run([&] {
        const auto differences = compare_disks(command.options, runner.status(),
                                               runner.limits().pace(), runner.cancellation());
        equal = differences.empty();
        return equal ? std::string("equal") : describe_first(differences);
    });
    if (result.phase != Phase::done) {
        return end(runner, result);
    }
    runner.print(result.line);
    return equal ? kDone : kDifferent;
}

// When it returns, the job's disks and its name are free.
JobRunner::Result run_mirror(const MirrorOptions& options, const LimitChanges& limits,
                             JobRunner& runner) {
    const UniqueFd outcome_fd = make_event_fd();
    runner.limits().apply(limits);
    CutoverRequests cutovers(outcome_fd.get());
    Mirror mirror(options, runner.status(), runner.limits(), cutovers, runner.cancellation());
    JobControl control(runner, cutovers, options.job, outcome_fd.get());
    JobRunner::Result result = runner.run([&] { return mirror.run(); });
    control.finish();
    return result;
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
    const JobRunner::Result result = run_mirror(options, command.limits, runner);
    if (result.phase == Phase::done) {
        runner.print(result.line);
    }
    return end(runner, result);
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
        std::cerr << own(error.what()) << '\n';
        return kUsage;
    } catch (const std::exception& error) {
        std::cerr << own(error.what()) << '\n';
        return kFailed;
    }
}
