// SPDX-License-Identifier: Apache-2.0
#include "client/nbd_endpoint.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <poll.h>

namespace nbdm {

bool is_lost_connection(int error) noexcept {
    constexpr std::array kErrors = {ECONNRESET, ECONNABORTED, ENOTCONN,    EPIPE,
                                    ESHUTDOWN,  ETIMEDOUT,    EHOSTUNREACH};
    return std::find(kErrors.begin(), kErrors.end(), error) != kErrors.end();
}

nbd_completion_callback NbdEndpoint::completion_of(EndpointRequest& request) {
    request.asked_ = true;
    return {.callback = &answered, .user_data = &request, .free = nullptr};
}

// libnbd tells the result of a command in *error; 1 means that the command needs no further call.
int NbdEndpoint::answered(void* request, int* error) {
    auto& answered = *static_cast<EndpointRequest*>(request);
    answered.asked_ = false;
    answered.done(*error);
    return 1;
}

void NbdEndpoint::read(EndpointRequest& request, Range range, std::byte* into) {
    begun(request, nbd_aio_pread(handle_.get(), into, range.length, range.offset,
                                 completion_of(request), 0));
}

void NbdEndpoint::write(EndpointRequest& request, Range range, const std::byte* from) {
    begun(request, nbd_aio_pwrite(handle_.get(), from, range.length, range.offset,
                                  completion_of(request), 0));
}

void NbdEndpoint::zero(EndpointRequest& request, Range range) {
    begun(request,
          nbd_aio_zero(handle_.get(), range.length, range.offset, completion_of(request), 0));
}

void NbdEndpoint::flush(EndpointRequest& request) {
    begun(request, nbd_aio_flush(handle_.get(), completion_of(request), 0));
}

void NbdEndpoint::begun(EndpointRequest& request, std::int64_t cookie) {
    // Of a command that could not be sent libnbd (1.14) has called back and freed it, and then
    // reads the cookie from there: it says nothing.
    if (cookie < 0 && request.asked_) {
        // Refused before it was sent: the connection is gone, or libnbd knows that the server
        // would not take it. The callback has not been and will not be called.
        const int error = nbd_get_errno();
        request.asked_ = false;
        request.done(lost() ? ECONNRESET : (error != 0 ? error : EIO));
    }
    watch();
}

bool NbdEndpoint::lost() const noexcept {
    return nbd_aio_is_ready(handle_.get()) != 1 && nbd_aio_is_processing(handle_.get()) != 1;
}

void NbdEndpoint::watch() {
    const int fd = nbd_aio_get_fd(handle_.get());
    if (closed_ || fd < 0) {
        return;
    }
    const unsigned direction = nbd_aio_get_direction(handle_.get());
    const unsigned wanted = ((direction & LIBNBD_AIO_DIRECTION_READ) != 0 ? POLLIN : 0U) |
                            ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? POLLOUT : 0U);
    if (!pending()) {
        if (wanted != 0) {
            watched_ = wanted;
            ring_.poll(*this, fd, wanted);
        }
    } else if ((wanted & ~watched_) != 0 && !rewatching_) {
        rewatching_ = true;
        ring_.cancel(*this);  // its completion watches anew
    }
}

void NbdEndpoint::completed(int result) noexcept {
    rewatching_ = false;
    if (closed_) {
        return;
    }
    // The ring passes on that somebody was woken, not that there still is something to read: of two
    // sends that were taken by one receive, the second wakes the next poll. libnbd (1.14) that is
    // told to read then and finds nothing keeps later commands to itself until something comes.
    pollfd now{nbd_aio_get_fd(handle_.get()), static_cast<short>(watched_), 0};
    if (result > 0) {
        ::poll(&now, 1, 0);
    }
    const unsigned direction = nbd_aio_get_direction(handle_.get());
    const bool readable = (now.revents & (POLLIN | POLLHUP | POLLERR)) != 0;
    const bool writable = (now.revents & POLLOUT) != 0;
    // An error here ends every command with an error of its own; nothing is lost by not looking.
    if (readable && (direction & LIBNBD_AIO_DIRECTION_READ) != 0) {
        nbd_aio_notify_read(handle_.get());
    } else if ((writable || readable) && (direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
        nbd_aio_notify_write(handle_.get());
    }
    watch();
}

void NbdEndpoint::close() {
    closed_ = true;
    ring_.cancel(*this);
}

}  // namespace nbdm
