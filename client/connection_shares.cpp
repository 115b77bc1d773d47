// SPDX-License-Identifier: Apache-2.0
#include "client/connection_shares.h"

#include <algorithm>

namespace nbdm {

unsigned ConnectionShares::among_all(std::size_t disk) const {
    const std::lock_guard lock(mutex_);
    return share(disk, copies_.size());
}

unsigned ConnectionShares::among_copying(std::size_t disk) const {
    const std::lock_guard lock(mutex_);
    const auto self = copies_.begin() + static_cast<std::ptrdiff_t>(disk);
    return share(static_cast<std::size_t>(std::count(copies_.begin(), self, true)),
                 static_cast<std::size_t>(std::count(copies_.begin(), copies_.end(), true)));
}

unsigned ConnectionShares::share(std::size_t rank, std::size_t sharers) const {
    const auto all = static_cast<std::size_t>(limits_.connections());
    return static_cast<unsigned>(
        std::max<std::size_t>(all / sharers + (rank < all % sharers ? 1 : 0), 1));
}

void ConnectionShares::set(std::size_t disk, bool copies) {
    const std::lock_guard lock(mutex_);
    copies_.at(disk) = copies;
}

}  // namespace nbdm
