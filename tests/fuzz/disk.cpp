// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/disk.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <stdexcept>
#include <unistd.h>
#include <utility>

#include <sys/mman.h>

#include "iothread/check.h"

namespace nbdm::fuzz {

Disk::Disk(UniqueFd fd, std::uint64_t bytes) : fd_(std::move(fd)), size_bytes_(bytes) {
    check_errno(::ftruncate(fd_.get(), static_cast<off_t>(bytes)), "cannot size a disk");
}

Disk Disk::in_memory(std::uint64_t bytes) {
    return {UniqueFd(check_errno(::memfd_create("disk", MFD_CLOEXEC), "cannot make a disk")),
            bytes};
}

std::optional<Disk> Disk::for_direct_io(std::uint64_t bytes) {
    // The first is seldom a tmpfs, which takes any alignment and hides what a real disk refuses.
    for (const std::string& directory :
         {std::string("/var/tmp"), std::filesystem::temp_directory_path().string()}) {
        UniqueFd file(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
        if (!file.valid()) {
            continue;
        }
        Disk disk(std::move(file), bytes);
        if (UniqueFd(::open(disk.path().c_str(), O_RDWR | O_DIRECT | O_CLOEXEC)).valid()) {
            return disk;
        }
    }
    return std::nullopt;
}

void Disk::clear() {
    check_errno(::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                            static_cast<off_t>(size_bytes_)),
                "cannot clear the disk");
}

void Disk::read(Bytes& into) const {
    const auto size = static_cast<off_t>(size_bytes_);
    if (::lseek(fd_.get(), 0, SEEK_END) != size) {
        throw std::runtime_error("the disk has another size");
    }
    // Holes by what the file system says of them: large disks are mostly that.
    into.assign(size_bytes_, std::byte{0});
    off_t at = 0;
    while (at < size && (at = ::lseek(fd_.get(), at, SEEK_DATA)) >= 0) {
        const off_t end = ::lseek(fd_.get(), at, SEEK_HOLE);
        while (at < end) {
            const ssize_t count = ::pread(fd_.get(), &into[static_cast<std::size_t>(at)],
                                          static_cast<std::size_t>(end - at), at);
            if (count <= 0) {
                throw errno_error(errno, "cannot read the disk");
            }
            at += count;
        }
    }
    if (at < 0 && errno != ENXIO) {
        throw errno_error(errno, "cannot look for the data of the disk");
    }
}

}  // namespace nbdm::fuzz
