// SPDX-License-Identifier: Apache-2.0
#include "client/scout.h"

#include <algorithm>
#include <chrono>

#include "iothread/check.h"

namespace nbdm {

namespace {

// The longest range of one question: lengths are 32 bits on the wire, and servers want them
// aligned to something.
constexpr std::uint64_t kMaxQuestionBytes = (std::uint64_t{1} << 32) - (std::uint64_t{64} << 20);
// A server may have to walk the metadata of a huge file.
constexpr std::chrono::milliseconds kAnswerLimit{120'000};

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

// The answer to one block status question; filled by libnbd's callbacks.
struct Answer {
    struct Status {
        Range range;
        std::uint32_t flags = 0;
    };
    Range within;
    std::string dirty_context;
    std::vector<Status> allocation;
    std::vector<Status> dirtiness;
    std::map<std::string, std::uint32_t> numbers;  // of other contexts, their first status
    bool done = false;
    int error = 0;

    void take(const char* context, std::uint64_t offset, const std::uint32_t* entries,
              std::size_t count) {
        const bool is_dirtiness = context == dirty_context;
        if (!is_dirtiness && std::string_view(context) != LIBNBD_CONTEXT_BASE_ALLOCATION) {
            if (count > 1) {
                numbers.emplace(context, entries[1]);
            }
            return;
        }
        auto& into = is_dirtiness ? dirtiness : allocation;
        for (std::size_t i = 0; i + 1 < count; i += 2) {
            const std::uint64_t end = std::min(offset + entries[i], within.end());
            if (end > offset) {
                into.push_back({Range::from_to(offset, end), entries[i + 1]});
            }
            offset = end;
        }
    }
};

// Both maps, cut to where both are known and to stretches that are alike in both.
std::vector<Extent> combine(const Answer& answer, bool with_dirtiness) {
    const Answer::Status all_data{answer.within, 0};
    const Answer::Status all_dirty{answer.within, 1};
    const std::vector<Answer::Status> allocation =
        answer.allocation.empty() ? std::vector{all_data} : answer.allocation;
    const std::vector<Answer::Status> dirtiness =
        with_dirtiness ? answer.dirtiness : std::vector{all_dirty};
    std::vector<Extent> result;
    std::uint64_t at = answer.within.offset;
    std::size_t a = 0;
    std::size_t d = 0;
    while (a < allocation.size() && d < dirtiness.size()) {
        const std::uint64_t end = std::min(allocation[a].range.end(), dirtiness[d].range.end());
        result.push_back({.range = Range::from_to(at, end),
                          .zero = (allocation[a].flags & LIBNBD_STATE_ZERO) != 0,
                          .dirty = (dirtiness[d].flags & 1) != 0});
        at = end;
        a += allocation[a].range.end() == end ? 1 : 0;
        d += dirtiness[d].range.end() == end ? 1 : 0;
    }
    return result;
}

// One block status question.
void ask(NbdHandle& handle, Answer& answer, const Cancellation& cancellation) {
    const nbd_extent_callback extent = {
        .callback =
            [](void* data, const char* context, std::uint64_t offset, std::uint32_t* entries,
               std::size_t count, int*) {
                static_cast<Answer*>(data)->take(context, offset, entries, count);
                return 0;
            },
        .user_data = &answer,
        .free = nullptr};
    const nbd_completion_callback completion = {.callback =
                                                    [](void* data, int* error) {
                                                        auto* to = static_cast<Answer*>(data);
                                                        to->error = *error;
                                                        to->done = true;
                                                        return 1;
                                                    },
                                                .user_data = &answer,
                                                .free = nullptr};
    if (nbd_aio_block_status(handle.get(), answer.within.length, answer.within.offset, extent,
                             completion, 0) < 0) {
        throw ConnectionLost("cannot ask " + handle.uri() +
                             " for its extents: " + NbdHandle::last_error());
    }
    handle.run_until([&answer] { return answer.done; }, kAnswerLimit, cancellation);
    if (answer.error != 0) {
        const std::string sentence = "cannot learn the extents at offset " +
                                     std::to_string(answer.within.offset) + " of " + handle.uri() +
                                     ": " + error_text(answer.error);
        if (is_lost_connection(answer.error)) {
            throw ConnectionLost(sentence);
        }
        throw JobError(sentence);
    }
}

// From the start of `within` on.
std::vector<Extent> ask(NbdHandle& handle, const std::string& dirty_context, Range within,
                        const Cancellation& cancellation) {
    Answer answer;
    answer.within = within.first(kMaxQuestionBytes);
    answer.dirty_context = dirty_context;
    ask(handle, answer, cancellation);
    std::vector<Extent> result = combine(answer, !dirty_context.empty());
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
    Answer answer;
    answer.within = Range{0, handle.traits().size_bytes}.first(handle.traits().alignment);
    ask(handle, answer, cancellation);
    return std::move(answer.numbers);
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
