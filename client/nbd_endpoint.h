// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "client/endpoint.h"
#include "client/nbd_handle.h"

namespace nbdm {

// A connection to an NBD server: libnbd's protocol, this thread's ring as its event loop.
class NbdEndpoint final : public Endpoint, private Operation {
  public:
    // `handle` outlives the endpoint.
    NbdEndpoint(Ring& ring, NbdHandle& handle) : ring_(ring), handle_(handle) {}

    void read(EndpointRequest& request, Range range, std::byte* into) override;
    void write(EndpointRequest& request, Range range, const std::byte* from) override;
    void zero(EndpointRequest& request, Range range) override;
    void flush(EndpointRequest& request) override;
    // After every call into libnbd, too: keeps the poll in the ring at what libnbd waits for.
    void watch() override;
    [[nodiscard]] bool lost() const noexcept override;
    void abandon() override { handle_.abandon(); }
    void close() override;

  private:
    void completed(int result) noexcept override;
    [[nodiscard]] static nbd_completion_callback completion_of(EndpointRequest& request);
    static int answered(void* request, int* error);
    void begun(EndpointRequest& request, std::int64_t cookie);

    Ring& ring_;
    NbdHandle& handle_;
    unsigned watched_ = 0;     // the events the pending poll is for
    bool rewatching_ = false;  // that poll is being cancelled, for other events
    bool closed_ = false;
};

}  // namespace nbdm
