// SPDX-License-Identifier: Apache-2.0
#include "server/block_status.h"

#include <algorithm>
#include <utility>

namespace nbdm {

using wire::Error;

namespace {

static_assert(Request::kMaxContexts > 2 * TrackerSet::kMaxTrackers);  // and those of one each

struct Described {
    Range range;
    std::uint32_t status = 0;
};

std::uint32_t whole_mebibytes(std::uint64_t bytes) {
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes >> 20, UINT32_MAX));
}

Described next(const Export& served, int extents_fd, const MetaContext& context, Range within) {
    switch (context.kind) {
        case MetaContext::Kind::allocation: {
            const FileExtent extent = served.file().next_extent(extents_fd, within);
            return {extent.range, extent.hole ? wire::kStateHole | wire::kStateZero : 0};
        }
        case MetaContext::Kind::dirtiness: {
            const DirtyExtent extent = context.tracker.tracker->frozen().next_extent(within);
            return {extent.range, extent.dirty ? wire::kStateDirty : 0};
        }
        case MetaContext::Kind::allocated:
        case MetaContext::Kind::room: {
            const auto space = served.file().space().value_or(DiskFile::Space{});
            return {within, whole_mebibytes(context.kind == MetaContext::Kind::room
                                                ? space.room_bytes
                                                : space.allocated_bytes)};
        }
        case MetaContext::Kind::incoming:
        case MetaContext::Kind::session:
        case MetaContext::Kind::commit:
        case MetaContext::Kind::background:
            break;  // selecting it is all there is to it
    }
    return {within, 0};
}

// Describes `range` (not empty) until its end or until `into` (not empty) is full; one descriptor
// is always written, and none reaches past the range.
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

}  // namespace

Error BlockStatus::read_payload(Request& request,
                                std::span<const std::byte> payload) const noexcept {
    request.range.length = wire::load<wire::BlockStatusPayload>(payload).length;
    request.contexts.reset();
    for (auto ids = payload.subspan(sizeof(wire::BlockStatusPayload)); !ids.empty();
         ids = ids.subspan(sizeof(wire::Big32))) {
        const auto wanted = wire::load<wire::Big32>(ids);
        const auto found = std::find_if(session_.contexts.begin(), session_.contexts.end(),
                                        [&](const auto& each) { return each.id == wanted; });
        const auto place = static_cast<std::size_t>(found - session_.contexts.begin());
        if (found == session_.contexts.end() || request.contexts.test(place)) {
            return Error::invalid;
        }
        request.contexts.set(place);
    }
    return Error::none;
}

Error BlockStatus::answer(Request& request) {
    for (std::size_t i = 0; i < session_.contexts.size(); ++i) {
        const MetaContext& context = session_.contexts[i];
        if (request.contexts.test(i) && context.kind == MetaContext::Kind::dirtiness &&
            !context.tracker.stands()) {
            return Error::invalid;
        }
    }
    if (session_.replies == ReplyStyle::extended) {
        describe_contexts<wire::ExtendedBlockDescriptor>(request);
    } else {
        describe_contexts<wire::BlockDescriptor>(request);
    }
    return Error::none;
}

template <typename Descriptor>
void BlockStatus::describe_contexts(Request& request) {
    constexpr std::size_t kMaxDescriptors = kAnswerBytes / sizeof(wire::ExtendedBlockDescriptor);
    const std::size_t limit =
        request.has(wire::kReqOne) ? 1 : kMaxDescriptors / session_.contexts.size();
    // Descriptors are made of bytes: any memory is good for them.
    std::span<Descriptor> free(reinterpret_cast<Descriptor*>(request.buffer.data()),
                               kMaxDescriptors);
    std::size_t last = session_.contexts.size() - 1;
    while (!request.contexts.test(last)) {
        --last;
    }
    for (std::size_t i = 0; i <= last; ++i) {
        if (!request.contexts.test(i)) {
            continue;
        }
        const MetaContext& context = session_.contexts[i];
        const std::size_t count =
            describe(*session_.served, extents_fd_, context, request.range, free.first(limit));
        answer_.block_status(request, context.id, std::span<const Descriptor>(free.first(count)),
                             i == last);
        free = free.subspan(count);
    }
}

}  // namespace nbdm
