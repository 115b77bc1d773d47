// SPDX-License-Identifier: Apache-2.0
#include "control/runtime_paths.h"

#include <cerrno>
#include <cstdlib>
#include <initializer_list>

#include <sys/stat.h>

#include "iothread/check.h"

namespace nbdm {

namespace {

std::string first_set(std::initializer_list<const char*> variables, const char* otherwise) {
    for (const char* variable : variables) {
        const char* value = ::getenv(variable);  // NOLINT(concurrency-mt-unsafe): nobody sets it
        if (value != nullptr && *value != '\0') {
            const std::string list = value;
            return list.substr(0, list.find(':'));
        }
    }
    return otherwise;
}

}  // namespace

std::string runtime_directory() {
    return first_set({"NBD_MIRROR_RUNTIME_DIR", "RUNTIME_DIRECTORY"}, "/run/nbd-mirror");
}

std::string state_directory(const std::string& option) {
    return !option.empty()
               ? option
               : first_set({"NBD_MIRROR_STATE_DIR", "STATE_DIRECTORY"}, "/var/lib/nbd-mirror");
}

std::string default_server_socket() {
    return runtime_directory() + "/server.sock";
}

std::string jobs_runtime_directory() {
    return runtime_directory() + "/jobs";
}

std::string job_socket(const std::string& job) {
    return jobs_runtime_directory() + "/" + job + ".sock";
}

std::string jobs_state_directory() {
    return state_directory() + "/jobs";
}

std::string job_state_path(const std::string& job) {
    return jobs_state_directory() + "/" + job + ".json";
}

std::string job_record_path(const std::string& job) {
    return jobs_state_directory() + "/" + job + ".record";
}

void ensure_directory(const std::string& path, mode_t mode) {
    for (std::size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
        const std::string part = path.substr(0, slash);
        const bool last = slash == std::string::npos;
        if (!part.empty() && ::mkdir(part.c_str(), last ? mode : 0755) < 0 && errno != EEXIST) {
            throw errno_error(errno, "cannot make the directory '" + part + "'");
        }
        if (last) {
            break;
        }
    }
    struct stat status {};
    check_errno(::stat(path.c_str(), &status), "cannot use the directory '" + path + "'");
    if (!S_ISDIR(status.st_mode)) {
        throw errno_error(ENOTDIR, "cannot use '" + path + "' as a directory");
    }
}

}  // namespace nbdm
