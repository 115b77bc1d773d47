// SPDX-License-Identifier: Apache-2.0
#include "server/image_format.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <unistd.h>
#include <utility>

namespace nbdm {

namespace {

// As QEMU's block/*.c probe for them.
constexpr std::pair<std::string_view, std::string_view> kMagics[] = {
    {"QFI\xfb", "qcow2"},
    {"KDMV", "VMDK"},
    {"vhdxfile", "VHDX"},
    {"conectix", "VHD"},
};

}  // namespace

std::string_view image_format(std::string_view head) noexcept {
    for (const auto& [magic, name] : kMagics) {
        if (head.starts_with(magic)) {
            return name;
        }
    }
    return {};
}

std::string_view image_format_of(const DiskFile& file) noexcept {
    // Whole and aligned, as O_DIRECT wants it.
    constexpr std::size_t kHeadBytes = 4096;
    alignas(kHeadBytes) std::array<char, kHeadBytes> head;
    const ssize_t count = ::pread(file.fd(), head.data(), head.size(), 0);
    return image_format({head.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))});
}

}  // namespace nbdm
