// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace nbdm {

// What tells that a target is still what a mirror has made of it: as an nbd-mirror-server says in
// metadata contexts of its own, or of a file.
struct TargetContent {
    static inline const std::string kDiskContext = "nbd-mirror:disk";
    static inline const std::string kFillersContext = "nbd-mirror:fillers";

    std::uint32_t disk = 0;     // DiskIdentity::fingerprint()
    std::uint32_t fillers = 0;  // 0: no other mirror since the server was started

    // Of ask_numbers(); nothing when the server does not say.
    [[nodiscard]] static std::optional<TargetContent> in(
        const std::map<std::string, std::uint32_t>& numbers);

    // `then` may be unknown.
    [[nodiscard]] static bool is_still(const std::optional<TargetContent>& then,
                                       const std::optional<TargetContent>& now) noexcept {
        return !then || (now && now->disk == then->disk &&
                         (now->fillers == then->fillers || now->fillers == 0));
    }
};

}  // namespace nbdm
