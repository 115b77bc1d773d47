// SPDX-License-Identifier: Apache-2.0
#include "server/reply_queue.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <poll.h>

#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "control/log.h"
#include "iothread/check.h"
#include "server/transmission.h"

namespace nbdm {

void ReplyQueue::push(std::span<const std::byte> header, std::span<const std::byte> data,
                      Request* last_of) {
    push_header(header, last_of).data = data;
}

void ReplyQueue::push_file(std::span<const std::byte> header, Range data, Request* last_of) {
    push_header(header, last_of).file = data;
}

ReplyQueue::Entry& ReplyQueue::push_header(std::span<const std::byte> header, Request* last_of) {
    assert(header.size() <= kMaxHeaderBytes);
    Entry& entry = entries_.emplace_back();
    std::copy(header.begin(), header.end(), entry.header.begin());
    entry.header_bytes = header.size();
    entry.last_of = last_of;
    return entry;
}

std::size_t ReplyQueue::gather(std::span<iovec> parts, bool& file_follows) noexcept {
    file_follows = false;
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
        if (!entries_[i].file.empty()) {
            file_follows = true;
            break;
        }
    }
    return count;
}

// -1 and errno, or how much the socket took.
ssize_t ReplyQueue::send_some() noexcept {
    const Entry& first = entries_[next_];
    if (!first.file.empty() && sent_of_next_ >= first.header_bytes) {
        const Range left = first.file.after(sent_of_next_ - first.header_bytes);
        off_t offset = static_cast<off_t>(left.offset);
        const ssize_t count = ::sendfile(fd_, file_fd_, &offset, left.length);
        if (count == 0) {
            errno = EIO;  // the file has become shorter
        }
        if (count > 0 || errno == EAGAIN || errno == EINTR || errno == EPIPE ||
            errno == ECONNRESET) {
            return count;
        }
        const int error = errno;
        log_error("cannot read " + std::to_string(left.length) + " bytes at offset " +
                  std::to_string(left.offset) + ": " + error_text(error) +
                  "; the client is disconnected, since its answer had begun");
        errno = error;
        return -1;
    }
    std::array<iovec, kMaxParts> parts;
    msghdr message{};
    message.msg_iov = parts.data();
    bool file_follows = false;
    message.msg_iovlen = gather(parts, file_follows);
    return ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL | (file_follows ? MSG_MORE : 0));
}

bool ReplyQueue::send() {
    while (!empty() && !pending()) {
        const ssize_t count = send_some();
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
