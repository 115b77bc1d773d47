// SPDX-License-Identifier: Apache-2.0
#include "server/block_status.h"

#include <algorithm>
#include <cerrno>
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

// Where the statuses of one answer come from.
struct Origin {
    const Export& served;
    ExtentMemory& extents;
    ExtentMemory::Clock::time_point now;
    std::span<const DigestRun> digests;
};

Described next(const Origin& origin, const MetaContext& context, Range within) {
    const Export& served = origin.served;
    switch (context.kind) {
        case MetaContext::Kind::allocation: {
            const FileExtent extent = origin.extents.next_extent(within, origin.now);
            return {extent.range, extent.hole ? wire::kStateHole | wire::kStateZero : 0};
        }
        case MetaContext::Kind::dirtiness: {
            const DirtyExtent extent = context.tracker.tracker->frozen().next_extent(within);
            return {extent.range, extent.dirty ? wire::kStateDirty : 0};
        }
        case MetaContext::Kind::digest: {
            const auto run = std::ranges::find_if(origin.digests, [&](const DigestRun& each) {
                return within.offset < each.range.end();
            });
            return {within.first(run->range.end() - within.offset),
                    run->digest[context.digest.part]};
        }
        case MetaContext::Kind::allocated:
        case MetaContext::Kind::room: {
            const auto space = served.file().space().value_or(DiskFile::Space{});
            return {within, whole_mebibytes(context.kind == MetaContext::Kind::room
                                                ? space.room_bytes
                                                : space.allocated_bytes)};
        }
        case MetaContext::Kind::disk:
            return {within, served.fingerprint()};
        case MetaContext::Kind::fillers:
            return {within, served.fence().order()};
        case MetaContext::Kind::mirrors:
            return {within, static_cast<std::uint32_t>(served.fence().standing())};
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
std::size_t describe(const Origin& origin, const MetaContext& context, Range range,
                     std::span<Descriptor> into) noexcept {
    // As wide as the length of the request, which no extent exceeds.
    using Length = decltype(+std::declval<Descriptor>().length);
    std::size_t count = 0;
    while (!range.empty()) {
        const Described found = next(origin, context, range);
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

BlockStatus::BlockStatus(const Session& session, int own_fd, ExtentMemory& extents,
                         ReplyWriter& answer) noexcept
    : session_(session), extents_(extents), answer_(answer) {
    const auto digest = std::ranges::find_if(session.contexts, &MetaContext::is_digest);
    if (digest != session.contexts.end()) {
        digests_.emplace(session.served->file(), own_fd, digest->digest.seed);
    }
}

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

bool BlockStatus::reads(const Request& request) const noexcept {
    for (std::size_t i = 0; i < session_.contexts.size(); ++i) {
        if (request.contexts.test(i) && session_.contexts[i].is_digest()) {
            return true;
        }
    }
    return false;
}

int BlockStatus::answer(Request& request) {
    for (std::size_t i = 0; i < session_.contexts.size(); ++i) {
        const MetaContext& context = session_.contexts[i];
        if (request.contexts.test(i) && context.kind == MetaContext::Kind::dirtiness &&
            !context.tracker.stands()) {
            return EINVAL;
        }
    }
    digest_runs_.clear();
    if (reads(request)) {
        // Of one extent no more is wanted than its first block.
        constexpr std::uint64_t kBlock = BlockDigests::kBlockBytes;
        const std::uint64_t rest_of_block = kBlock - request.range.offset % kBlock;
        const Range wanted =
            request.has(wire::kReqOne) ? request.range.first(rest_of_block) : request.range;
        const int error = digests_->read(
            wanted, {request.buffer.data(), BlockDigests::kMemoryBytes}, digest_runs_);
        if (error != 0) {
            return error;
        }
    }
    if (session_.replies == ReplyStyle::extended) {
        describe_contexts<wire::ExtendedBlockDescriptor>(request);
    } else {
        describe_contexts<wire::BlockDescriptor>(request);
    }
    return 0;
}

template <typename Descriptor>
void BlockStatus::describe_contexts(Request& request) {
    constexpr std::size_t kMaxDescriptors = kAnswerBytes / sizeof(wire::ExtendedBlockDescriptor);
    const std::size_t limit =
        request.has(wire::kReqOne) ? 1 : kMaxDescriptors / session_.contexts.size();
    // Descriptors are made of bytes: any memory is good for them.
    std::span<Descriptor> free(
        reinterpret_cast<Descriptor*>(request.buffer.data() + memory_bytes() - kAnswerBytes),
        kMaxDescriptors);
    const Origin origin{*session_.served, extents_, request.arrived, digest_runs_};
    std::size_t last = session_.contexts.size() - 1;
    while (!request.contexts.test(last)) {
        --last;
    }
    for (std::size_t i = 0; i <= last; ++i) {
        if (!request.contexts.test(i)) {
            continue;
        }
        const MetaContext& context = session_.contexts[i];
        const Range range = context.is_digest() ? Range::from_to(request.range.offset,
                                                                 digest_runs_.back().range.end())
                                                : request.range;
        const std::size_t count = describe(origin, context, range, free.first(limit));
        answer_.block_status(request, context.id, std::span<const Descriptor>(free.first(count)),
                             i == last);
        free = free.subspan(count);
    }
}

}  // namespace nbdm
