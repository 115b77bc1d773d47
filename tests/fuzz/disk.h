// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "iothread/unique_fd.h"
#include "tests/fuzz/conversation.h"

namespace nbdm::fuzz {

// A disk that is zero at first, under a path that can be opened like any other; gone with its
// object, however the process ends. Fails with std::system_error.
class Disk {
  public:
    [[nodiscard]] static Disk in_memory(std::uint64_t bytes);
    // A file that can be opened with O_DIRECT; nothing where no file system can do that.
    [[nodiscard]] static std::optional<Disk> for_direct_io(std::uint64_t bytes);

    [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }
    // All of it, now that nobody writes to it.
    void read(Bytes& into) const;
    // It is one hole again.
    void clear();

  private:
    Disk(UniqueFd fd, std::uint64_t bytes);
    UniqueFd fd_;
    std::uint64_t size_bytes_;
};

}  // namespace nbdm::fuzz
