// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "iothread/disk_operation.h"
#include "iothread/range.h"
#include "iothread/ring.h"

namespace nbdm {

// The errors of a command whose connection was lost, or whose server is about to stop.
[[nodiscard]] bool is_lost_connection(int error) noexcept;

// What an end of a copy can do.
struct EndpointTraits {
    std::uint64_t size_bytes = 0;
    bool read_only = false;
    bool can_flush = true;
    bool can_zero = true;         // zeroing without sending zeroes
    bool can_multi_conn = true;   // a flush on one connection covers all
    bool knows_extents = true;    // holes and zeroes can be asked for
    bool fences = false;          // nothing lands that an earlier connection of the job has left
    bool incoming = false;        // it waits for a mirror, and has to be told of the hand-over
    std::uint64_t alignment = 1;  // of offsets and lengths, but for the end of the disk
    std::uint64_t max_payload_bytes = 32 << 20;
};

// One read, write, zeroing or flush at an endpoint. Pinned, one request at a time; its memory
// stays valid until done().
class EndpointRequest : public DiskOperation {
  public:
    // 0 or a positive errno. Called on the endpoint's thread, perhaps before the call that began
    // the request returns: new work is therefore queued, not begun, here.
    virtual void done(int error) noexcept = 0;

  protected:
    ~EndpointRequest() = default;

  private:
    friend class NbdEndpoint;
    // Of a file: no error of it is a lost connection, which would be made again.
    void finished(int error) noexcept final { done(is_lost_connection(error) ? EIO : error); }

    bool asked_ = false;  // of an NBD server, which has not answered
};

// One end of a copy, as one worker uses it: a connection to an NBD server, or a local file.
//
// Threads: the ring's, all methods. It is closed before it is destroyed.
class Endpoint {
  public:
    Endpoint() = default;
    Endpoint(const Endpoint&) = delete;
    Endpoint& operator=(const Endpoint&) = delete;
    virtual ~Endpoint() = default;

    // Ranges are not empty, lie inside the disk and fit the traits. Zeroing may punch holes.
    virtual void read(EndpointRequest& request, Range range, std::byte* into) = 0;
    virtual void write(EndpointRequest& request, Range range, const std::byte* from) = 0;
    virtual void zero(EndpointRequest& request, Range range) = 0;
    virtual void flush(EndpointRequest& request) = 0;

    // Notices from now on when its connection is lost, also while nothing is asked of it.
    virtual void watch() {}
    // Nothing that is asked for will succeed.
    [[nodiscard]] virtual bool lost() const noexcept { return false; }

    // What is under way need not succeed any more, but must end soon.
    virtual void abandon() = 0;
    // Nothing is asked for any more; what is under way ends with an error. The ring is then run
    // until it has nothing pending.
    virtual void close() = 0;
};

}  // namespace nbdm
