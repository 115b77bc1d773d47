// SPDX-License-Identifier: Apache-2.0
#include "server/options.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <sched.h>
#include <set>
#include <stdexcept>

#include <CLI/CLI.hpp>

#include "control/command_line.h"
#include "control/runtime_paths.h"
#include "control/size.h"
#include "control/utf8.h"
#include "iothread/memory_budget.h"
#include "nbd_mirror_version.h"
#include "server/nbd_wire.h"

namespace nbdm {

namespace {

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::size_t begin = 0;
    for (;;) {
        const std::size_t end = text.find(separator, begin);
        parts.push_back(text.substr(begin, end - begin));
        if (end == std::string::npos) {
            return parts;
        }
        begin = end + 1;
    }
}

void apply_key(ExportOptions& options, const std::string& key, const std::string& value) {
    const std::string where = "export '" + options.name + "': ";
    if (key == "ro") {
        if (!value.empty()) {
            throw std::invalid_argument(where + "ro takes no value");
        }
        options.read_only = true;
    } else if (key == "incoming") {
        if (!value.empty()) {
            throw std::invalid_argument(where +
                                        "incoming takes no value: guests wait, and are not "
                                        "served from the source meanwhile");
        }
        options.incoming = true;
    } else if (key == "size") {
        options.create_bytes = parse_size(value);
        if (!options.create_bytes || *options.create_bytes == 0) {
            throw std::invalid_argument(where + "'" + value + "' is not a size");
        }
    } else if (key == "cache") {
        const std::map<std::string, CacheMode> modes = {{"auto", CacheMode::automatic},
                                                        {"direct", CacheMode::direct},
                                                        {"writeback", CacheMode::writeback}};
        const auto mode = modes.find(value);
        if (mode == modes.end()) {
            throw std::invalid_argument(where + "cache is auto, direct or writeback, not '" +
                                        value + "'");
        }
        options.cache = mode->second;
    } else if (key == "description") {
        if (value.size() > wire::kMaxStringBytes) {
            throw std::invalid_argument(where + "the description is longer than " +
                                        std::to_string(wire::kMaxStringBytes) + " bytes");
        }
        options.description = value;
    } else {
        throw std::invalid_argument(where + "'" + key +
                                    "' is not known; ro, incoming, size=SIZE, cache=MODE "
                                    "and description=TEXT are");
    }
}

// A list that was cut at its commas, in a file of --config without quotes, must not be taken for
// several exports, of which the first has lost its ",ro".
void check_is_no_key(const std::string& word, const std::string& text) {
    for (const std::string_view key : {"ro", "incoming", "size", "cache", "description"}) {
        if (word == key) {
            throw std::invalid_argument(
                "export '" + text + "': " + word + " is told behind a comma, NAME=PATH," + text +
                ", in a file within quotes; a file of this name is ./" + word);
        }
    }
    if (text.starts_with('"')) {
        throw std::invalid_argument("export '" + text + "': a quote is not closed");
    }
}

// "0-3,6": CPU numbers.
std::vector<int> parse_cpus(const std::string& text) {
    const std::string bad = "--cpus '" + text + "': a list like 0-3,6 is expected";
    const auto number = [&](const std::string& part) {
        int value = -1;
        const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
        if (error != std::errc() || end != part.data() + part.size() || value < 0 || value > 1023) {
            throw std::invalid_argument(bad);
        }
        return value;
    };
    std::vector<int> cpus;
    for (const std::string& part : split(text, ',')) {
        const auto ends = split(part, '-');
        if (ends.size() > 2) {
            throw std::invalid_argument(bad);
        }
        const int first = number(ends.front());
        const int last = number(ends.back());
        if (first > last) {
            throw std::invalid_argument(bad);
        }
        for (int cpu = first; cpu <= last; ++cpu) {
            cpus.push_back(cpu);
        }
    }
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    ::sched_getaffinity(0, sizeof(allowed), &allowed);
    for (const int cpu : cpus) {
        if (!CPU_ISSET(static_cast<unsigned>(cpu), &allowed)) {
            throw std::invalid_argument("--cpus '" + text + "': there is no CPU " +
                                        std::to_string(cpu) + " that this process may use");
        }
    }
    return cpus;
}

struct RawOptions {
    std::vector<std::string> exports;
    std::vector<std::string> listen;
    std::string control;
    std::string state_dir;
    std::size_t max_connections = 256;
    std::string buffer_memory;
    std::int64_t handshake_timeout_s = 10;
    std::int64_t request_timeout_s = 300;
    std::string cpus;
    std::vector<std::string> take_ownership;
    std::string log_level = "info";
};

void declare(CLI::App& app, RawOptions& raw) {
    app.set_version_flag("--version", std::string("nbd-mirror-server ") + kVersion);
    app.set_config("--config", "", "FILE with options, OPTION = VALUE a line; EXPORT is one, too");
    app.allow_config_extras(CLI::config_extras_mode::error);
    app.add_option("EXPORT", raw.exports,
                   "PATH, or NAME=PATH[,ro][,incoming][,size=SIZE]"
                   "[,cache=auto|direct|writeback][,description=TEXT]")
        ->required();
    app.add_option("-l,--listen", raw.listen,
                   "tcp:HOST:PORT or unix:PATH; repeatable (tcp:localhost:10809)")
        ->allow_extra_args(false);
    app.add_option("--control", raw.control, "control socket (RUNTIME/server.sock)");
    app.add_option("--state-dir", raw.state_dir, "directory of durable records");
    app.add_option("--max-connections", raw.max_connections, "clients at a time (256)")
        ->check(CLI::Range(1, 65536));
    app.add_option("--buffer-memory", raw.buffer_memory,
                   "SIZE, for the data of all clients' requests together (1G)");
    app.add_option("--handshake-timeout", raw.handshake_timeout_s,
                   "seconds a client has for its negotiation (10)")
        ->check(CLI::Range(1, 3600));
    app.add_option("--request-timeout", raw.request_timeout_s,
                   "seconds a client may stop in the middle of a request (300)")
        ->check(CLI::Range(1, 86400));
    app.add_option("--cpus", raw.cpus, "pin the connections' threads to these CPUs, like 0-3,6");
    app.add_option("--take-ownership", raw.take_ownership,
                   "serve this export although its disk is recorded as moved away; repeatable")
        ->allow_extra_args(false)
        ->configurable(false);
    app.add_option("--log-level", raw.log_level, "error, warning, info or debug (info)")
        ->check(CLI::IsMember({"error", "warning", "info", "debug"}));
}

CommandLine validated(const RawOptions& raw) {
    CommandLine result;
    ServerOptions& server = result.server;
    std::set<std::string> names;
    for (const std::string& text : raw.exports) {
        server.exports.push_back(parse_export(text));
        if (!names.insert(server.exports.back().name).second) {
            throw std::invalid_argument("two exports have the name '" + server.exports.back().name +
                                        "'");
        }
    }
    for (const std::string& text : raw.listen) {
        server.listen.push_back(ListenAddress::parse(text));
    }
    for (const std::string& name : raw.take_ownership) {
        const auto named = std::ranges::find(server.exports, name, &ExportOptions::name);
        if (named == server.exports.end()) {
            throw std::invalid_argument("--take-ownership '" + name + "': no such export");
        }
        if (named->incoming) {
            throw std::invalid_argument("--take-ownership '" + name +
                                        "': the export is incoming, and somebody else's until it "
                                        "has landed");
        }
    }
    server.take_ownership = raw.take_ownership;
    server.control_path = raw.control.empty() ? default_server_socket() : raw.control;
    server.state_dir = state_directory(raw.state_dir);
    server.max_connections = raw.max_connections;
    if (!raw.buffer_memory.empty()) {
        const auto bytes = parse_size(raw.buffer_memory);
        if (!bytes || *bytes < MemoryBudget::kMinLimitBytes) {
            throw std::invalid_argument("--buffer-memory '" + raw.buffer_memory +
                                        "': a size of at least 96M is expected");
        }
        server.buffer_bytes = *bytes;
    }
    server.handshake_timeout = std::chrono::seconds(raw.handshake_timeout_s);
    server.request_timeout = std::chrono::seconds(raw.request_timeout_s);
    if (!raw.cpus.empty()) {
        server.cpus = parse_cpus(raw.cpus);
    }
    const std::map<std::string, LogLevel> levels = {{"error", LogLevel::error},
                                                    {"warning", LogLevel::warning},
                                                    {"info", LogLevel::info},
                                                    {"debug", LogLevel::debug}};
    result.log_level = levels.at(raw.log_level);
    return result;
}

}  // namespace

ExportOptions parse_export(const std::string& text) {
    ExportOptions options;
    // A path may contain an equals sign; a name does not contain a slash before it.
    const std::size_t equals = text.find('=');
    const std::size_t slash = text.find('/');
    const bool named =
        equals != std::string::npos && (slash == std::string::npos || equals < slash);
    options.name = named ? text.substr(0, equals) : "";
    check_is_no_key(named ? options.name : text, text);
    if (options.name == "-") {
        throw std::invalid_argument("an export is not named '-', which stands for the empty name");
    }
    if (options.name.size() > wire::kMaxStringBytes) {
        throw std::invalid_argument("an export's name has at most 4096 bytes");
    }
    if (!named) {
        options.path = text;
    } else {
        const auto parts = split(text.substr(equals + 1), ',');
        options.path = parts.front();
        for (std::size_t i = 1; i < parts.size(); ++i) {
            const std::size_t at = parts[i].find('=');
            apply_key(options, parts[i].substr(0, at),
                      at == std::string::npos ? "" : parts[i].substr(at + 1));
        }
    }
    if (options.path.empty()) {
        throw std::invalid_argument("export '" + text + "' has no path");
    }
    if (!is_utf8(options.name)) {
        throw std::invalid_argument("an export's name has to be UTF-8");
    }
    if (options.read_only && options.incoming) {
        throw std::invalid_argument("export '" + options.name +
                                    "': one that is incoming is written to, it cannot be ro");
    }
    return options;
}

std::optional<CommandLine> parse_command_line(int argc, char** argv) {
    CLI::App app{
        "Serves raw disk images and block devices over NBD, tracks what is written to "
        "them, and holds their writers at a cutover."};
    app.name("nbd-mirror-server");
    RawOptions raw;
    declare(app, raw);
    if (!parse_arguments(app, argc, argv)) {
        return std::nullopt;
    }
    return validated(raw);
}

}  // namespace nbdm
