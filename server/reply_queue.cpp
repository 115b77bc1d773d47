// SPDX-License-Identifier: Apache-2.0
#include "server/reply_queue.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <poll.h>

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

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
            return -1;
        }
        return count;
    }
    std::array<iovec, kMaxParts> parts;
    msghdr message{};
    message.msg_iov = parts.data();
    bool file_follows = false;
    message.msg_iovlen = gather(parts, file_follows);
    return ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL | (file_follows ? MSG_MORE : 0));
}

ReplyQueue::Sent ReplyQueue::send() {
    while (!empty() && !pending()) {
        const bool from_file =
            !entries_[next_].file.empty() && sent_of_next_ >= entries_[next_].header_bytes;
        const ssize_t count = send_some();
        if (count >= 0) {
            advance(static_cast<std::size_t>(count),
                    [](Request& request) { request.owner->replied(request); });
        } else if (errno == EAGAIN) {
            ring_.poll(*this, fd_, POLLOUT);
        } else if (errno != EINTR) {
            // A socket that is well has no reason to refuse: it was the file then.
            const int error = errno;
            pollfd socket{fd_, 0, 0};
            const bool socket_well =
                ::poll(&socket, 1, 0) == 0 && error != EPIPE && error != ECONNRESET;
            errno = error;
            return from_file && socket_well ? Sent::file_failed : Sent::socket_failed;
        }
    }
    return Sent::taken;
}

// `done` is called with each request whose last part is in what has gone.
template <typename Done>
void ReplyQueue::advance(std::size_t bytes, Done done) {
    sent_of_next_ += bytes;
    while (!empty() && sent_of_next_ >= entries_[next_].size()) {
        sent_of_next_ -= entries_[next_].size();
        Request* last_of = entries_[next_].last_of;
        ++next_;
        if (last_of != nullptr) {
            done(*last_of);
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
        advance(entries_[next_].size(), [](Request& request) { request.owner->release(request); });
    }
}

void ReplyQueue::cut_off() {
    ::shutdown(fd_, SHUT_RDWR);  // a poll that is pending ends, and each send fails
    drop();
}

std::uint64_t ReplyQueue::untaken_bytes() const noexcept {
    int bytes = 0;
    return ::ioctl(fd_, SIOCOUTQ, &bytes) == 0 ? static_cast<std::uint64_t>(bytes) : 0;
}

void ReplyQueue::completed(int) noexcept {}  // the owner's loop calls send() again

}  // namespace nbdm
