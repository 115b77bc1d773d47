// SPDX-License-Identifier: Apache-2.0
#include "client/block_status_question.h"

#include <algorithm>
#include <cstddef>
#include <memory>

#include "iothread/check.h"

namespace nbdm {

namespace {

// The longest range of one question: lengths are 32 bits on the wire, and servers want them
// aligned to something.
constexpr std::uint64_t kMaxQuestionBytes = (std::uint64_t{1} << 32) - (std::uint64_t{64} << 20);

// Filled by libnbd's callbacks, which may come after whoever has asked has given up: each owns it.
struct Answer {
    Range within;
    BlockStatuses statuses;
    bool done = false;
    int error = 0;

    void take(const char* context, std::uint64_t offset, const std::uint32_t* entries,
              std::size_t count) {
        std::vector<StatusRun>& into = statuses[context];
        for (std::size_t i = 0; i + 1 < count; i += 2) {
            const std::uint64_t end = std::min(offset + entries[i], within.end());
            if (end > offset) {
                into.push_back({Range::from_to(offset, end), entries[i + 1]});
            }
            offset = end;
        }
    }
};

}  // namespace

BlockStatuses ask_block_status(NbdHandle& handle, const BlockStatusQuestion& question,
                               const Cancellation& cancellation) {
    using Owner = std::shared_ptr<Answer>;
    const auto answer = std::make_shared<Answer>();
    answer->within = question.within.first(kMaxQuestionBytes);
    const auto forget = [](void* owner) { delete static_cast<Owner*>(owner); };
    const nbd_extent_callback extent = {
        .callback =
            [](void* owner, const char* context, std::uint64_t offset, std::uint32_t* entries,
               std::size_t count, int*) {
                (*static_cast<Owner*>(owner))->take(context, offset, entries, count);
                return 0;
            },
        .user_data = new Owner(answer),
        .free = forget};
    const nbd_completion_callback completion = {.callback =
                                                    [](void* owner, int* error) {
                                                        Answer& to = **static_cast<Owner*>(owner);
                                                        to.error = *error;
                                                        to.done = true;
                                                        return 1;
                                                    },
                                                .user_data = new Owner(answer),
                                                .free = forget};
    const std::string what = question.what;
    // A cookie says nothing of a command that was answered by then: see NbdEndpoint::begun().
    if (nbd_aio_block_status(handle.get(), answer->within.length, answer->within.offset, extent,
                             completion, 0) < 0 &&
        !answer->done) {
        throw ConnectionLost("cannot ask " + handle.uri() + " for its " + what + ": " +
                             NbdHandle::last_error());
    }
    handle.run_until([&answer] { return answer->done; }, question.limit, cancellation);
    if (answer->error != 0) {
        const std::string sentence = "cannot learn the " + what + " at offset " +
                                     std::to_string(answer->within.offset) + " of " + handle.uri() +
                                     ": " + error_text(answer->error);
        if (is_lost_connection(answer->error)) {
            throw ConnectionLost(sentence);
        }
        throw JobError(sentence);
    }
    return std::move(answer->statuses);
}

}  // namespace nbdm
