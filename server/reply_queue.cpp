// SPDX-License-Identifier: Apache-2.0
#include "server/reply_queue.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <poll.h>

#include <sys/socket.h>
#include <sys/uio.h>

#include "server/transmission.h"

namespace nbdm {

void ReplyQueue::push(std::span<const std::byte> header, std::span<const std::byte> data,
                      Request* last_of) {
    assert(header.size() <= kMaxHeaderBytes);
    Entry& entry = entries_.emplace_back();
    std::copy(header.begin(), header.end(), entry.header.begin());
    entry.header_bytes = header.size();
    entry.data = data;
    entry.last_of = last_of;
}

std::size_t ReplyQueue::gather(std::span<iovec> parts) noexcept {
    std::size_t count = 0;
    std::size_t skip = sent_of_next_;
    const auto add = [&](std::byte* data, std::size_t bytes) {
        const std::size_t skipped = std::min(skip, bytes);
        skip -= skipped;
        if (bytes > skipped) {
            parts[count++] = {data + skipped, bytes - skipped};
        }
    };
    for (std::size_t i = next_; i < entries_.size() && count + 2 <= parts.size(); ++i) {
        add(entries_[i].header.data(), entries_[i].header_bytes);
        // iovec has no const; a send reads only.
        add(const_cast<std::byte*>(entries_[i].data.data()), entries_[i].data.size());
    }
    return count;
}

bool ReplyQueue::send() {
    while (!empty() && !pending()) {
        std::array<iovec, kMaxParts> parts;
        msghdr message{};
        message.msg_iov = parts.data();
        message.msg_iovlen = gather(parts);
        const ssize_t count = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count >= 0) {
            sent(static_cast<std::size_t>(count));
        } else if (errno == EAGAIN) {
            ring_.poll(*this, fd_, POLLOUT);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

void ReplyQueue::sent(std::size_t bytes) {
    sent_of_next_ += bytes;
    while (!empty() && sent_of_next_ >= entries_[next_].size()) {
        sent_of_next_ -= entries_[next_].size();
        Request* done = entries_[next_].last_of;
        ++next_;
        if (done != nullptr) {
            done->owner->replied(*done);
        }
    }
    // The sent half goes: a queue that is never empty stays as short as what is not sent.
    if (2 * next_ >= entries_.size()) {
        entries_.erase(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(next_));
        next_ = 0;
    }
}

void ReplyQueue::drop() {
    sent_of_next_ = 0;
    while (!empty()) {
        sent(entries_[next_].size());
    }
}

void ReplyQueue::completed(int) noexcept {}  // the owner's loop calls send() again

}  // namespace nbdm
