// SPDX-License-Identifier: Apache-2.0
#include "iothread/extent_memory.h"

namespace nbdm {

FileExtent ExtentMemory::next_extent(Range within, Clock::time_point now) noexcept {
    const std::uint64_t holes_made = file_.holes_made();
    const bool remembered = now - asked_at_ < kDataIsRemembered && holes_made == holes_made_ &&
                            !data_.empty() && data_.offset <= within.offset &&
                            within.offset < data_.end();
    if (remembered) {
        return {within.first(data_.end() - within.offset), false};
    }
    const Range rest = Range::from_to(within.offset, file_.size_bytes());
    const FileExtent found = file_.next_extent(fd_, rest);
    if (!found.hole) {
        data_ = found.range;
        asked_at_ = now;
        holes_made_ = holes_made;
    }
    return {found.range.first(within.length), found.hole};
}

}  // namespace nbdm
