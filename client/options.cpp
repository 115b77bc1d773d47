// SPDX-License-Identifier: Apache-2.0
#include "client/options.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <stdexcept>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "control/command_line.h"
#include "control/size.h"
#include "nbd_mirror_version.h"

namespace nbdm {

namespace {

constexpr std::size_t kMaxJobNameBytes = 64;
constexpr const char* kSourceHelp = "PATH, NBD URI, server:NAME or server:NAME@CONTROL_SOCKET";

struct RawOptions {
    std::string source;
    std::string target;
    std::vector<std::string> more;        // sources and targets in turn
    std::optional<unsigned> connections;  // 0: auto
    std::optional<unsigned> requests;
    std::string request_size = "256K";
    bool create = false;
    bool target_is_zero = false;
    bool allocated = false;
    bool verify = false;
    bool delta = false;
    std::optional<std::string> bwlimit;
    std::optional<std::string> window;
    std::string progress = "auto";
    std::optional<std::string> job;
    bool resume = false;
    std::int64_t reconnect_timeout_s = 30;
    std::optional<std::string> granularity;
    std::string cutover = "manual";
    std::string handover = "retire";
    std::string converge = "throttle";
    std::optional<std::int64_t> max_downtime_ms;
    std::optional<std::string> hooks;
    std::int64_t hook_timeout_s = 30;
    bool json = false;
    bool watch = false;
};

void declare_connections(CLI::App& command, RawOptions& raw) {
    command
        .add_option("-c,--connections", raw.connections,
                    "connections to each side, each with a thread of its own (4)")
        ->check(CLI::Range(1U, kMaxConnections));
}

// Of a job that can find out.
void declare_connections_or_auto(CLI::App& command, RawOptions& raw) {
    const auto translate = [](std::string& text) -> std::string {
        if (text == "auto") {
            text = "0";
            return "";
        }
        const std::string refusal = CLI::Range(1U, kMaxConnections)(text);
        return refusal.empty() ? "" : refusal + ", nor auto";
    };
    command
        .add_option("-c,--connections", raw.connections,
                    "connections to each side, each with a thread of its own, or auto: as many as "
                    "gain throughput (4)")
        ->transform(CLI::Validator(translate, ""));
}

void declare_bwlimit(CLI::App& command, RawOptions& raw) {
    command.add_option("--bwlimit", raw.bwlimit,
                       "RATE in bytes per second, at least 64K, of the whole job, or off (off)");
}

// What a job is started with and may be changed while it runs.
void declare_limits(CLI::App& command, RawOptions& raw) {
    declare_bwlimit(command, raw);
    command
        .add_option("--max-downtime", raw.max_downtime_ms,
                    "milliseconds that writers may be held at the cutover (500)")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{kMaxDowntimeLimit.count()}));
    command.add_option("--window", raw.window,
                       "HH:MM-HH:MM, the time of day in which the job works, or off (off)");
}

enum class Sides { required, optional };

void declare_sides(CLI::App& command, RawOptions& raw, const char* source_help,
                   Sides sides = Sides::required) {
    command.add_option("SOURCE", raw.source, source_help)->required(sides == Sides::required);
    command.add_option("TARGET", raw.target, "PATH or NBD URI")->required(sides == Sides::required);
    command.add_option("--requests", raw.requests, "most requests in flight per connection (16)")
        ->check(CLI::Range(1, 256));
    command.add_option("--request-size", raw.request_size,
                       "bytes of one read or write, a power of two from 4K to 32M (256K)");
    command.add_option("--progress", raw.progress, "auto, bar, json or none (auto)")
        ->check(CLI::IsMember({"auto", "bar", "json", "none"}));
}

void declare_writing(CLI::App& command, RawOptions& raw) {
    command.add_flag("--create", raw.create, "make the target file, sparse, when it is missing");
    command.add_flag("--target-is-zero", raw.target_is_zero,
                     "trust that the whole target reads as zero");
    command.add_flag("--allocated", raw.allocated, "write zeroes as data, leave no holes");
}

void declare_mirror(CLI::App& command, RawOptions& raw) {
    declare_sides(command, raw, "server:NAME or server:NAME@CONTROL_SOCKET", Sides::optional);
    command.add_option("MORE", raw.more,
                       "SOURCE TARGET of further disks of the guest, exports of the same server");
    declare_connections_or_auto(command, raw);
    declare_writing(command, raw);
    command.add_option("--job", raw.job, "the job's name (the export's)");
    command.add_flag("--verify", raw.verify,
                     "read all that was copied again, and compare it with the source");
    command.add_flag("--resume", raw.resume,
                     "go on with a job whose mirror has died; SOURCE and TARGET are recorded");
    command
        .add_option("--reconnect-timeout", raw.reconnect_timeout_s,
                    "seconds to go on trying to reconnect when a connection is lost (30)")
        ->check(CLI::Range(0, 86400));
    command.add_option("--granularity", raw.granularity,
                       "bytes of one block of the dirty map, a power of two from 4K to 64M (16K; "
                       "more for disks of more than 2 TiB)");
    command
        .add_option("--cutover", raw.cutover,
                    "manual: when told to; auto: as soon as it is ready (manual)")
        ->check(CLI::IsMember({"manual", "auto"}));
    command
        .add_option("--converge", raw.converge,
                    "throttle: slow writers down by as much as is needed to get ready; off: never "
                    "(throttle)")
        ->check(CLI::IsMember({"throttle", "off"}));
    command
        .add_option("--handover", raw.handover,
                    "retire: the source refuses writes for good; release: its writers go on "
                    "(retire)")
        ->check(CLI::IsMember({"retire", "release"}));
    CLI::Option* hooks = command.add_option(
        "--hooks", raw.hooks, "DIR whose executable files are called at each step of the job");
    command
        .add_option("--hook-timeout", raw.hook_timeout_s,
                    "seconds after which a hook that still runs is ended (30)")
        ->check(CLI::Range(1, 3600))
        ->needs(hooks);
    declare_limits(command, raw);
}

std::uint64_t power_of_two(const std::string& text, const std::string& option, std::uint64_t least,
                           std::uint64_t most) {
    const std::optional<std::uint64_t> value = parse_size(text);
    if (!value || !std::has_single_bit(*value) || *value < least || *value > most) {
        throw std::invalid_argument(option + " '" + text + "': a power of two from " +
                                    std::to_string(least) + " to " + std::to_string(most) +
                                    " is expected");
    }
    return *value;
}

LimitChanges limit_changes(const RawOptions& raw) {
    LimitChanges changes;
    if (raw.bwlimit) {
        changes.bwlimit_bytes_per_s.emplace();
        if (*raw.bwlimit != "off") {
            *changes.bwlimit_bytes_per_s = parse_size(*raw.bwlimit);
            if (changes.bwlimit_bytes_per_s->value_or(0) < Pace::kMinBytesPerSecond) {
                throw std::invalid_argument("--bwlimit '" + *raw.bwlimit +
                                            "': bytes per second, like 50M and at least 64K, or "
                                            "'off' is expected");
            }
        }
    }
    if (raw.window) {
        changes.window.emplace();
        if (*raw.window != "off") {
            *changes.window = TimeWindow::parse(*raw.window);
            if (!*changes.window) {
                throw std::invalid_argument("--window '" + *raw.window +
                                            "': HH:MM-HH:MM, two different times, or 'off' is "
                                            "expected");
            }
        }
    }
    if (raw.connections) {
        changes.connections = *raw.connections > 0 ? raw.connections : std::nullopt;
    }
    if (raw.max_downtime_ms) {
        changes.max_downtime = std::chrono::milliseconds(*raw.max_downtime_ms);
    }
    return changes;
}

ProgressStyle progress_style(const std::string& name) {
    if (name == "auto") {
        return ::isatty(STDERR_FILENO) == 1 ? ProgressStyle::bar : ProgressStyle::json;
    }
    return name == "bar" ? ProgressStyle::bar
                         : (name == "json" ? ProgressStyle::json : ProgressStyle::none);
}

Location target_location(const std::string& text) {
    Location target = Location::parse(text);
    if (target.kind == Location::Kind::server_export) {
        throw std::invalid_argument("target '" + text + "': a path or an NBD URI is expected");
    }
    return target;
}

CopyOptions copy_options(const RawOptions& raw) {
    CopyOptions options;
    if (!raw.source.empty()) {
        options.source = Location::parse(raw.source);
    }
    if (!raw.target.empty()) {
        options.target = target_location(raw.target);
    }
    options.engine.connections = raw.connections.value_or(options.engine.connections);
    options.engine.requests = raw.requests.value_or(options.engine.requests);
    if (raw.requests || raw.connections) {
        options.engine.first_per_connection = raw.requests.value_or(InFlightWindow::kFewPerWorker);
    }
    options.engine.request_bytes = power_of_two(raw.request_size, "--request-size", 4096, 32 << 20);
    options.engine.zeroes_as_data = raw.allocated;
    options.create = raw.create;
    options.target_is_zero = raw.target_is_zero;
    options.verify = raw.verify;
    options.delta = raw.delta;
    return options;
}

void check_job_name(const std::string& job) {
    if (job != default_job_name(job)) {
        throw std::invalid_argument("job '" + job +
                                    "': a name of up to 64 letters, digits, '.', "
                                    "'_' and '-' is expected that does not begin with '.'");
    }
}

// Of disks that move together.
void check_disks(const std::vector<DiskMirror::Options>& disks) {
    for (auto disk = disks.begin(); disk != disks.end(); ++disk) {
        const Location& source = disk->copy.source;
        if (source.kind != Location::Kind::server_export) {
            throw std::invalid_argument("source '" + source.text +
                                        "' cannot report what is written to it, so it cannot be "
                                        "mirrored; use server:NAME, or 'copy' if nothing writes "
                                        "to it");
        }
        if (source.control_socket != disks.front().copy.source.control_socket) {
            throw std::invalid_argument(
                "'" + source.text + "' is an export of another server than '" +
                disks.front().copy.source.text + "': their hand-over could not be one");
        }
        for (auto other = disks.begin(); other != disk; ++other) {
            if (other->copy.source.export_name == source.export_name) {
                throw std::invalid_argument("source '" + source.text + "' is named twice");
            }
            if (other->copy.target.path_or_uri == disk->copy.target.path_or_uri) {
                throw std::invalid_argument("target '" + disk->copy.target.text +
                                            "' is named twice");
            }
        }
    }
}

MirrorCommand mirror_command(const RawOptions& raw) {
    MirrorCommand command;
    MirrorOptions& options = command.options;
    options.resume = raw.resume;
    options.reconnect_timeout = std::chrono::seconds(raw.reconnect_timeout_s);
    DiskMirror::Options disk;
    disk.copy = copy_options(raw);
    if (raw.granularity) {
        disk.granularity_bytes = static_cast<std::uint32_t>(
            power_of_two(*raw.granularity, "--granularity", 4096, 64 << 20));
    }
    if (raw.resume && raw.source.empty()) {
        if (!raw.job) {
            throw std::invalid_argument("mirror --resume: which job? --job names it");
        }
    } else if (raw.source.empty() || raw.target.empty() || raw.more.size() % 2 != 0) {
        throw std::invalid_argument("mirror: SOURCE and TARGET are expected" +
                                    std::string(raw.more.empty() ? "" : ", for each disk"));
    }
    options.job = raw.job.value_or(default_job_name(disk.copy.source.export_name));
    check_job_name(options.job);
    disk.job = options.job;
    options.disks.push_back(disk);
    for (std::size_t i = 0; i < raw.more.size(); i += 2) {
        disk.copy.source = Location::parse(raw.more[i]);
        disk.copy.target = target_location(raw.more[i + 1]);
        options.disks.push_back(disk);
    }
    if (!raw.source.empty()) {
        check_disks(options.disks);
    }
    options.cut_over_when_ready = raw.cutover == "auto";
    options.may_throttle = raw.converge == "throttle";
    options.handover = raw.handover == "retire" ? Handover::retire : Handover::release;
    options.hooks = {.directory = raw.hooks, .timeout = std::chrono::seconds(raw.hook_timeout_s)};
    command.limits = limit_changes(raw);
    command.progress = progress_style(raw.progress);
    return command;
}

CLI::App* declare_job_command(CLI::App& app, RawOptions& raw, const char* name, const char* help) {
    CLI::App* command = app.add_subcommand(name, help);
    command->add_option("JOB", raw.job, "the job's name")->required();
    return command;
}

}  // namespace

std::string default_job_name(const std::string& export_name) {
    std::string name = export_name.substr(0, kMaxJobNameBytes);
    std::replace_if(
        name.begin(), name.end(),
        [](char c) {
            const auto byte = static_cast<unsigned char>(c);
            return byte >= 128 || (std::isalnum(byte) == 0 && c != '.' && c != '_' && c != '-');
        },
        '_');
    if (name.starts_with('.')) {
        name.front() = '_';
    }
    return name.empty() ? "default" : name;
}

std::optional<Command> parse_command_line(int argc, char** argv) {
    CLI::App app{"Moves virtual disks between NBD servers while they are in use."};
    app.name("nbd-mirror");
    app.set_version_flag("--version", std::string("nbd-mirror ") + kVersion);
    app.require_subcommand(1);
    RawOptions raw;
    CLI::App* copy = app.add_subcommand("copy", "copy a disk that is not being written");
    declare_sides(*copy, raw, kSourceHelp);
    declare_connections(*copy, raw);
    declare_writing(*copy, raw);
    declare_bwlimit(*copy, raw);
    copy->add_flag("--verify", raw.verify, "compare source and target afterwards");
    copy->add_flag("--delta", raw.delta, "read the target too, and write only what differs");
    CLI::App* mirror = app.add_subcommand("mirror", "copy a disk in use, stay in step, cut over");
    declare_mirror(*mirror, raw);
    CLI::App* verify = app.add_subcommand("verify", "compare two disks");
    declare_sides(*verify, raw, kSourceHelp);
    declare_connections(*verify, raw);
    CLI::App* status = app.add_subcommand("status", "show running and ended mirror jobs");
    status->add_option("JOB", raw.job, "the job's name (all jobs)");
    status->add_flag("--json", raw.json, "as JSON");
    status->add_flag("--watch", raw.watch, "show it until it has ended, or q is pressed");
    const std::vector<std::pair<CLI::App*, JobCommand::Kind>> job_commands = {
        {declare_job_command(app, raw, "cutover",
                             "hand the disk over to the target, once the job is ready"),
         JobCommand::Kind::cutover},
        {declare_job_command(app, raw, "pause", "stop copying, and stay in step with the source"),
         JobCommand::Kind::pause},
        {declare_job_command(app, raw, "resume", "go on copying"), JobCommand::Kind::resume},
        {declare_job_command(app, raw, "cancel", "end a job; its source stays in service"),
         JobCommand::Kind::cancel}};
    CLI::App* set = declare_job_command(app, raw, "set", "change the limits of a running job");
    declare_connections_or_auto(*set, raw);
    declare_limits(*set, raw);
    if (!parse_arguments(app, argc, argv)) {
        return std::nullopt;
    }
    if (copy->parsed()) {
        return CopyCommand{copy_options(raw), limit_changes(raw), progress_style(raw.progress)};
    }
    if (verify->parsed()) {
        return VerifyCommand{copy_options(raw), progress_style(raw.progress)};
    }
    if (mirror->parsed()) {
        return mirror_command(raw);
    }
    if (raw.job) {
        check_job_name(*raw.job);
    }
    const std::string job = raw.job.value_or("");
    if (status->parsed()) {
        return StatusCommand{job, raw.json, raw.watch};
    }
    if (set->parsed()) {
        SetCommand command{job, limit_changes(raw)};
        if (command.limits.to_json().empty()) {
            throw std::invalid_argument("set: what is to be changed? --help lists it");
        }
        return command;
    }
    const auto asked = std::find_if(job_commands.begin(), job_commands.end(),
                                    [](const auto& each) { return each.first->parsed(); });
    return JobCommand{asked->second, job};
}

}  // namespace nbdm
