// SPDX-License-Identifier: Apache-2.0
#include "client/scout.h"

#include <algorithm>

#include "client/block_status_question.h"

namespace nbdm {

namespace {

std::vector<std::string> contexts(const std::string& dirty_context, const std::string& session) {
    std::vector<std::string> result = {LIBNBD_CONTEXT_BASE_ALLOCATION};
    if (!dirty_context.empty()) {
        result.push_back(dirty_context);
    }
    if (!session.empty()) {
        result.push_back(session);
    }
    return result;
}

// Allocation and, with `dirty_context` not empty, dirtiness, from the start of `within` on: as far
// as both are known, in stretches that are alike in both.
std::vector<Extent> ask(NbdHandle& handle, const std::string& dirty_context, Range within,
                        const Cancellation& cancellation) {
    BlockStatuses statuses =
        ask_block_status(handle, {.within = within, .what = "extents"}, cancellation);
    std::vector<StatusRun>& allocation = statuses[LIBNBD_CONTEXT_BASE_ALLOCATION];
    if (allocation.empty()) {
        allocation.push_back({within, 0});  // all is data
    }
    const std::vector<StatusRun> dirtiness =
        dirty_context.empty() ? std::vector<StatusRun>{{within, 1}} : statuses[dirty_context];
    std::vector<Extent> result;
    std::uint64_t at = within.offset;
    std::size_t a = 0;
    std::size_t d = 0;
    while (a < allocation.size() && d < dirtiness.size()) {
        const std::uint64_t end = std::min(allocation[a].range.end(), dirtiness[d].range.end());
        result.push_back({.range = Range::from_to(at, end),
                          .zero = (allocation[a].status & LIBNBD_STATE_ZERO) != 0,
                          .dirty = (dirtiness[d].status & 1) != 0});
        at = end;
        a += allocation[a].range.end() == end ? 1 : 0;
        d += dirtiness[d].range.end() == end ? 1 : 0;
    }
    if (result.empty()) {
        throw JobError(handle.uri() + " gave no extents at offset " +
                       std::to_string(within.offset));
    }
    return result;
}

}  // namespace

NbdScout::NbdScout(const std::string& uri, const std::string& tracker, const std::string& session,
                   const Cancellation& cancellation)
    : cancellation_(cancellation),
      dirty_context_(tracker.empty() ? "" : "nbd-mirror:dirty-bitmap:" + tracker),
      handle_(uri, contexts(dirty_context_, session), cancellation),
      knows_allocation_(nbd_can_meta_context(handle_.get(), LIBNBD_CONTEXT_BASE_ALLOCATION) == 1) {
    if (!dirty_context_.empty() &&
        nbd_can_meta_context(handle_.get(), dirty_context_.c_str()) != 1) {
        throw JobError("the dirty map of tracker '" + tracker + "' is not to be had from " + uri);
    }
}

std::vector<Extent> NbdScout::extents(Range within) {
    if (!knows_allocation_ && dirty_context_.empty()) {
        return {{.range = within}};
    }
    return ask(handle_, dirty_context_, within, cancellation_);
}

std::vector<Extent> all_extents(NbdHandle& handle, Range all, const Cancellation& cancellation) {
    std::vector<Extent> result;
    for (Range left = all; !left.empty();) {
        for (const Extent& extent : ask(handle, "", left, cancellation)) {
            if (!result.empty() && result.back().zero == extent.zero) {
                result.back().range.length += extent.range.length;
            } else {
                result.push_back(extent);
            }
        }
        left = Range::from_to(result.back().range.end(), all.end());
    }
    return result;
}

std::map<std::string, std::uint32_t> ask_numbers(NbdHandle& handle,
                                                 const std::vector<std::string>& contexts,
                                                 const Cancellation& cancellation) {
    if (std::none_of(contexts.begin(), contexts.end(), [&](const std::string& context) {
            return nbd_can_meta_context(handle.get(), context.c_str()) == 1;
        })) {
        return {};
    }
    std::map<std::string, std::uint32_t> numbers;
    const Range start = Range{0, handle.traits().size_bytes}.first(handle.traits().alignment);
    for (const auto& [context, runs] :
         ask_block_status(handle, {.within = start, .what = "extents"}, cancellation)) {
        if (!runs.empty()) {
            numbers[context] = runs.front().status;
        }
    }
    return numbers;
}

std::vector<Extent> KnownScout::extents(Range within) {
    // The first extent that ends behind the start of `within`.
    const auto found = std::upper_bound(
        extents_.begin(), extents_.end(), within.offset,
        [](std::uint64_t offset, const Extent& each) { return offset < each.range.end(); });
    Extent extent = *found;
    extent.range = Range::from_to(within.offset, std::min(within.end(), found->range.end()));
    return {extent};
}

std::vector<Extent> FileScout::extents(Range within) {
    if (!may_have_holes_) {
        return {{.range = within}};
    }
    const FileExtent extent = file_.next_extent(fd_.get(), within);
    return {{.range = extent.range, .zero = extent.hole}};
}

}  // namespace nbdm
