// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "control/log.h"
#include "server/server.h"

namespace nbdm {

struct CommandLine {
    ServerOptions server;
    LogLevel log_level = LogLevel::info;
};

// NAME=PATH[,KEY[=VALUE]]... or PATH. Throws std::invalid_argument with a sentence.
[[nodiscard]] ExportOptions parse_export(const std::string& text);

// Declares and checks the flags, nothing else. Nothing: it is all done (--help, --version), exit 0.
// Throws std::invalid_argument with a sentence: exit 2.
[[nodiscard]] std::optional<CommandLine> parse_command_line(int argc, char** argv);

}  // namespace nbdm
