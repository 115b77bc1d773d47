// SPDX-License-Identifier: Apache-2.0
#include "control/durable_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

#include "iothread/check.h"

namespace nbdm {

namespace {

constexpr const char* kTemporarySuffix = ".new";

void write_all(int fd, std::string_view text, const std::string& what) {
    while (!text.empty()) {
        const ssize_t count = ::write(fd, text.data(), text.size());
        if (count < 0 && errno == EINTR) {
            continue;
        }
        text.remove_prefix(static_cast<std::size_t>(check_errno(static_cast<int>(count), what)));
    }
}

// Errors by which a rename is refused before anything is changed. Any other may come of one that
// was done: ENOENT of a server that was asked twice (NFS), errors of the way to it (CIFS, FUSE).
bool was_refused(int error) noexcept {
    constexpr std::array kRefusals = {EACCES, EDQUOT, ELOOP, ENAMETOOLONG, ENOSPC, EPERM, EROFS};
    return std::find(kRefusals.begin(), kRefusals.end(), error) != kRefusals.end();
}

UniqueFd open_directory_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    return UniqueFd(check_errno(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                                "cannot open the directory '" + directory + "'"));
}

}  // namespace

DurableFile::DurableFile(const std::string& path, std::string_view text)
    : path_(path),
      name_(path.substr(path.rfind('/') + 1)),
      temporary_(name_ + "." + std::to_string(::getpid()) + kTemporarySuffix),
      directory_(open_directory_of(path)) {
    const std::string what = "cannot write '" + path_ + "'";
    try {
        const UniqueFd file(check_errno(::openat(directory_.get(), temporary_.c_str(),
                                                 O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
                                        what));
        write_all(file.get(), text, what);
        check_errno(::fsync(file.get()), what);
    } catch (const std::system_error&) {
        ::unlinkat(directory_.get(), temporary_.c_str(), 0);
        throw;
    }
}

DurableFile::~DurableFile() {
    if (temporary_stands_) {
        ::unlinkat(directory_.get(), temporary_.c_str(), 0);
    }
}

void DurableFile::commit() {
    const int result =
        ::renameat(directory_.get(), temporary_.c_str(), directory_.get(), name_.c_str());
    may_stand_ = result == 0 || !was_refused(errno);
    check_errno(result, "cannot write '" + path_ + "'");
    temporary_stands_ = false;
    sync_directory();
}

void DurableFile::remove() {
    if (!may_stand_) {
        return;
    }
    // The temporary file first: a rename that is done late then finds nothing to put in place.
    for (const std::string& name : {temporary_, name_}) {
        if (::unlinkat(directory_.get(), name.c_str(), 0) < 0 && errno != ENOENT) {
            throw errno_error(errno, "cannot remove '" + path_ + "'");
        }
    }
    temporary_stands_ = false;
    sync_directory();
}

void DurableFile::sync_directory() const {
    check_errno(::fsync(directory_.get()), "cannot make '" + path_ + "' durable");
}

void write_file_durably(const std::string& path, std::string_view text) {
    DurableFile(path, text).commit();
}

void remove_leftovers(const std::string& directory) noexcept {
    namespace fs = std::filesystem;
    constexpr std::chrono::hours kLongestWrite{1};
    std::error_code error;
    const auto old = fs::file_time_type::clock::now() - kLongestWrite;
    for (fs::directory_iterator each(directory, error), end; !error && each != end;
         each.increment(error)) {
        std::error_code ignored;
        if (each->path().extension() == kTemporarySuffix &&
            fs::last_write_time(each->path(), ignored) < old && !ignored) {
            fs::remove(each->path(), ignored);
        }
    }
}

void sync_directory_of(const std::string& path) {
    check_errno(::fsync(open_directory_of(path).get()),
                "cannot make the directory of '" + path + "' durable");
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
