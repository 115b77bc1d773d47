// SPDX-License-Identifier: Apache-2.0
#include "server/block_status.h"

#include <utility>

namespace nbdm {

namespace {

struct Described {
    Range range;
    std::uint32_t status = 0;
};

Described next(const Export& served, int extents_fd, const MetaContext& context, Range within) {
    if (context.is_allocation()) {
        const FileExtent extent = served.file().next_extent(extents_fd, within);
        return {extent.range, extent.hole ? wire::kStateHole | wire::kStateZero : 0};
    }
    const DirtyExtent extent = context.tracker.tracker->frozen().next_extent(within);
    return {extent.range, extent.dirty ? wire::kStateDirty : 0};
}

}  // namespace

template <typename Descriptor>
std::size_t describe(const Export& served, int extents_fd, const MetaContext& context, Range range,
                     std::span<Descriptor> into) noexcept {
    // As wide as the length of the request, which no extent exceeds.
    using Length = decltype(+std::declval<Descriptor>().length);
    std::size_t count = 0;
    while (!range.empty()) {
        const Described found = next(served, extents_fd, context, range);
        const auto length = static_cast<Length>(found.range.length);
        if (count > 0 && into[count - 1].status == found.status) {
            into[count - 1].length = into[count - 1].length + length;
        } else if (count < into.size()) {
            into[count++] = {.length = length, .status = found.status};
        } else {
            break;
        }
        range = range.after(found.range.length);
    }
    return count;
}

template std::size_t describe(const Export&, int, const MetaContext&, Range,
                              std::span<wire::BlockDescriptor>) noexcept;
template std::size_t describe(const Export&, int, const MetaContext&, Range,
                              std::span<wire::ExtendedBlockDescriptor>) noexcept;

}  // namespace nbdm
