// SPDX-License-Identifier: Apache-2.0
#include "control/command_line.h"

#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace nbdm {

namespace {

// "copy, mirror, verify": empty for a program without commands, and once one was chosen.
std::string commands_to_choose_from(const CLI::App& app) {
    std::string names;
    if (app.get_subcommands().empty()) {
        for (const CLI::App* command : app.get_subcommands({})) {
            names += (names.empty() ? "" : ", ") + command->get_name();
        }
    }
    return names;
}

std::string not_expected(const CLI::App& app, const std::string& argument) {
    if (argument.size() > 1 && argument.starts_with('-')) {
        return "option " + argument.substr(0, argument.find('=')) + " is not known here";
    }
    const std::string commands = commands_to_choose_from(app);
    return commands.empty() ? "argument '" + argument + "' is one too many"
                            : "'" + argument + "' is not one of the commands " + commands;
}

// CLI11's own sentence where that is clear.
std::string sentence_of(const CLI::App& app, const CLI::ParseError& error) {
    // First, since what else is wrong may follow from it: after --exprot the EXPORT is missing.
    const std::vector<std::string> left = app.remaining(/*recurse=*/true);
    if (!left.empty()) {
        return not_expected(app, left.front());
    }
    const std::string text = error.what();
    if (dynamic_cast<const CLI::FileError*>(&error) != nullptr) {
        return "--config: " + text;
    }
    if (dynamic_cast<const CLI::ConfigError*>(&error) != nullptr) {
        // An option that there is not, a section, or no option at all.
        const std::string unknown = "INI was not able to parse ";
        return "--config: " + (text.starts_with(unknown)
                                   ? "there is no option '" + text.substr(unknown.size()) + "'"
                                   : text);
    }
    const std::string option = text.substr(0, text.find(": "));
    if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
        // "--cpus: 1 required TEXT missing", or "--cpus: At Most 1 required but received 2".
        return option +
               (text.ends_with(" missing") ? ": a value is missing" : " is given more than once");
    }
    const std::string commands = commands_to_choose_from(app);
    return commands.empty() ? text : "a command is missing, one of " + commands;
}

}  // namespace

bool parse_arguments(CLI::App& app, int argc, char** argv) {
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& asked) {
        app.exit(asked, std::cout, std::cerr);
        return false;
    } catch (const CLI::ParseError& error) {
        throw std::invalid_argument(sentence_of(app, error));
    }
    return true;
}

}  // namespace nbdm
