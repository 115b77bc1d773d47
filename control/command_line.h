// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>

namespace nbdm {

// Parses what `app` declares. False: it is all done (--help, --version), exit 0. Throws
// std::invalid_argument with a sentence that names what is wrong: exit 2. Threads: one.
[[nodiscard]] bool parse_arguments(CLI::App& app, int argc, char** argv);

}  // namespace nbdm
