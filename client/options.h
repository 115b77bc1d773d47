// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "client/copy.h"
#include "client/job_limits.h"
#include "client/mirror.h"
#include "client/progress_printer.h"

namespace nbdm {

struct CopyCommand {
    CopyOptions options;
    LimitChanges limits;
    ProgressStyle progress = ProgressStyle::none;
};
struct VerifyCommand {
    CopyOptions options;
    ProgressStyle progress = ProgressStyle::none;
};
struct MirrorCommand {
    MirrorOptions options;
    LimitChanges limits;
    ProgressStyle progress = ProgressStyle::none;
};
struct StatusCommand {
    std::string job;  // empty: all
    bool json = false;
    bool watch = false;
};
// What is asked of a running job.
struct JobCommand {
    enum class Kind { cutover, pause, resume, cancel };
    Kind kind = Kind::cutover;
    std::string job;
};
struct SetCommand {
    std::string job;
    LimitChanges limits;
};
using Command =
    std::variant<CopyCommand, VerifyCommand, MirrorCommand, StatusCommand, JobCommand, SetCommand>;

// Declares and checks the flags, nothing else. Nothing: it is all done (--help, --version), exit 0.
// Throws std::invalid_argument with a sentence: exit 2.
[[nodiscard]] std::optional<Command> parse_command_line(int argc, char** argv);

// The job's name for an export, when none was given: its name with everything that is not a
// letter, a digit, '.', '_' or '-' replaced, and a '.' that it begins with.
[[nodiscard]] std::string default_job_name(const std::string& export_name);

}  // namespace nbdm
