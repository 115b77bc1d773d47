// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>

namespace nbdm {

// "cannot start" errors: the text says what failed and on what, the code says why.
[[nodiscard]] inline std::system_error errno_error(int error, const std::string& what) {
    return {error, std::generic_category(), what};
}

// The text of an errno.
[[nodiscard]] inline std::string error_text(int error) {
    return std::generic_category().message(error);
}

// For calls that return -1 and set errno.
inline int check_errno(int result, const std::string& what) {
    if (result < 0) {
        throw errno_error(errno, what);
    }
    return result;
}

// Takes a step of the start; what its error says then ends with `hint`, which names the option or
// variable that helps.
template <typename Step>
auto with_hint(const std::string& hint, Step step) {
    try {
        return step();
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(error.what() + ("; " + hint));
    }
}

}  // namespace nbdm
