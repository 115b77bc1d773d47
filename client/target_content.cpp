// SPDX-License-Identifier: Apache-2.0
#include "client/target_content.h"

namespace nbdm {

std::optional<TargetContent> TargetContent::in(
    const std::map<std::string, std::uint32_t>& numbers) {
    const auto disk = numbers.find(kDiskContext);
    const auto fillers = numbers.find(kFillersContext);
    if (disk == numbers.end() || fillers == numbers.end()) {
        return std::nullopt;
    }
    return TargetContent{.disk = disk->second, .fillers = fillers->second};
}

}  // namespace nbdm
