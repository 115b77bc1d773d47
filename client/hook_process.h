// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace nbdm {

// One program to be run, in a process group of its own and without a shell.
struct HookProgram {
    std::string path;
    std::vector<std::string> arguments;  // behind its name
    std::string input;                   // what it finds on standard input
    std::chrono::milliseconds timeout{30'000};
    // What is late has this long between SIGTERM and SIGKILL, both to the whole group.
    std::chrono::milliseconds grace{2000};
};

struct HookResult {
    // Empty when it has ended with exit status 0; else "exit status 3", "late: not done within 30
    // s" and the like.
    std::string failure;
    std::string last_line;  // of its output that is not empty
};

// Runs a hook to its end. Processes that it leaves running are left alone, but nobody reads their
// output.
//
// `say` is called with its output line by line; of much output, only with the first part. The
// program is ended when `unwanted`, asked several times a second, returns true.
//
// Threads: any. Fails: std::system_error when this process lacks descriptors or memory; that a
// program cannot be started is its failure.
[[nodiscard]] HookResult run_hook(const HookProgram& program,
                                  const std::function<void(std::string_view)>& say,
                                  const std::function<bool()>& unwanted);

}  // namespace nbdm
