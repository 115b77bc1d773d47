// SPDX-License-Identifier: Apache-2.0
#include "control/durable_file.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <unistd.h>

#include "iothread/check.h"
#include "iothread/unique_fd.h"

namespace nbdm {

namespace {

void write_all(int fd, std::string_view text, const std::string& what) {
    while (!text.empty()) {
        const ssize_t count = ::write(fd, text.data(), text.size());
        if (count < 0 && errno == EINTR) {
            continue;
        }
        text.remove_prefix(static_cast<std::size_t>(check_errno(static_cast<int>(count), what)));
    }
}

}  // namespace

void write_file_durably(const std::string& path, std::string_view text) {
    const std::string what = "cannot write '" + path + "'";
    const std::string temporary = path + "." + std::to_string(::getpid()) + ".new";
    try {
        const UniqueFd file(check_errno(
            ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), what));
        write_all(file.get(), text, what);
        check_errno(::fsync(file.get()), what);
        check_errno(std::rename(temporary.c_str(), path.c_str()), what);
    } catch (const std::system_error&) {
        ::unlink(temporary.c_str());
        throw;
    }
    sync_directory_of(path);
}

void rename_durably(const std::string& from, const std::string& to) {
    if (std::rename(from.c_str(), to.c_str()) < 0) {
        const int error = errno;
        throw errno_error(error, "cannot rename '" + from + "' to '" + to + "'");
    }
    sync_directory_of(to);
}

void sync_directory_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const std::string what = "cannot make '" + directory + "' durable";
    const UniqueFd opened(
        check_errno(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), what));
    check_errno(::fsync(opened.get()), what);
}

std::optional<std::string> read_file(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid() && errno == ENOENT) {
        return std::nullopt;
    }
    const std::string what = "cannot read '" + path + "'";
    check_errno(file.get(), what);
    std::string text;
    std::array<char, 4096> part;
    for (;;) {
        const ssize_t count = ::read(file.get(), part.data(), part.size());
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (check_errno(static_cast<int>(count), what) == 0) {
            return text;
        }
        text.append(part.data(), static_cast<std::size_t>(count));
    }
}

}  // namespace nbdm
