// SPDX-License-Identifier: Apache-2.0
#include "iothread/zero_scan.h"

#include <algorithm>
#include <cstring>

namespace nbdm {

bool is_all_zero(std::span<const std::byte> bytes) noexcept {
    // The first bytes are looked at alone, since data seldom begins with zeroes; then memory that
    // equals itself shifted by that head is zero throughout, and memcmp is as fast as it gets.
    constexpr std::size_t kHead = 16;
    const std::size_t head = std::min(kHead, bytes.size());
    for (std::size_t i = 0; i < head; ++i) {
        if (bytes[i] != std::byte{0}) {
            return false;
        }
    }
    return bytes.size() <= kHead ||
           std::memcmp(bytes.data(), bytes.data() + kHead, bytes.size() - kHead) == 0;
}

}  // namespace nbdm
