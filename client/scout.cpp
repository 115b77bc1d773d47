// SPDX-License-Identifier: Apache-2.0
#include "client/scout.h"

#include <algorithm>
#include <poll.h>

#include "client/block_status_question.h"

namespace nbdm {

namespace {

std::vector<std::string> with(const std::string& context, const std::string& session) {
    return session.empty() ? std::vector{context} : std::vector{context, session};
}

// In one metadata context, from the start of `within` on.
std::vector<StatusRun> ask(NbdHandle& handle, const std::string& context, Range within,
                           const Cancellation& cancellation) {
    return ask_block_status(handle, {.within = within, .what = "extents"}, cancellation)[context];
}

// Of a server that answers without it all is data.
std::vector<Extent> ask_allocation(NbdHandle& handle, Range within,
                                   const Cancellation& cancellation) {
    std::vector<Extent> result;
    for (const StatusRun& run : ask(handle, LIBNBD_CONTEXT_BASE_ALLOCATION, within, cancellation)) {
        const bool zero = (run.status & LIBNBD_STATE_ZERO) != 0;
        result.push_back(
            {.range = run.range, .allocation = zero ? Allocation::zero : Allocation::data});
    }
    return result.empty() ? std::vector<Extent>{{.range = within}} : result;
}

std::vector<Extent> ask_dirtiness(NbdHandle& handle, const std::string& context, Range within,
                                  const Cancellation& cancellation) {
    std::vector<Extent> result;
    for (const StatusRun& run : ask(handle, context, within, cancellation)) {
        result.push_back({.range = run.range, .dirty = (run.status & 1) != 0});
    }
    if (result.empty()) {
        throw JobError(handle.uri() + " does not say what is dirty at offset " +
                       std::to_string(within.offset));
    }
    return result;
}

}  // namespace

NbdScout::NbdScout(const std::string& uri, const std::string& tracker, const std::string& session,
                   const Cancellation& cancellation)
    : cancellation_(cancellation),
      context_(tracker.empty() ? LIBNBD_CONTEXT_BASE_ALLOCATION
                               : "nbd-mirror:dirty-bitmap:" + tracker),
      tells_dirtiness_(!tracker.empty()),
      handle_(uri, with(context_, session), cancellation),
      is_told_(nbd_can_meta_context(handle_.get(), context_.c_str()) == 1) {
    if (tells_dirtiness_ && !is_told_) {
        throw JobError("the dirty map of tracker '" + tracker + "' is not to be had from " + uri);
    }
}

std::vector<Extent> NbdScout::extents(Range within) {
    if (tells_dirtiness_) {
        return ask_dirtiness(handle_, context_, within, cancellation_);
    }
    return is_told_ ? ask_allocation(handle_, within, cancellation_)
                    : std::vector<Extent>{{.range = within}};
}

void NbdScout::check_connected() const {
    pollfd socket{nbd_aio_get_fd(handle_.get()), POLLRDHUP, 0};
    if (socket.fd < 0 || ::poll(&socket, 1, 0) > 0) {
        throw ConnectionLost("the server of " + handle_.uri() + " has closed the connection");
    }
}

std::vector<Extent> all_extents(NbdHandle& handle, Range all, const Cancellation& cancellation) {
    std::vector<Extent> result;
    for (Range left = all; !left.empty();) {
        for (const Extent& extent : ask_allocation(handle, left, cancellation)) {
            if (!result.empty() && result.back().allocation == extent.allocation) {
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

std::vector<Extent> dirty_extents(const std::vector<Range>& parts, std::uint64_t size_bytes) {
    std::vector<Extent> extents;
    std::uint64_t at = 0;
    const auto add = [&](std::uint64_t end, bool dirty) {
        if (end > at) {
            extents.push_back({.range = Range::from_to(at, end),
                               .allocation = Allocation::unknown,
                               .dirty = dirty});
            at = end;
        }
    };
    for (const Range& part : parts) {
        add(part.offset, false);
        add(part.end(), true);
    }
    add(size_bytes, false);
    return extents;
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
    return {
        {.range = extent.range, .allocation = extent.hole ? Allocation::zero : Allocation::data}};
}

}  // namespace nbdm
