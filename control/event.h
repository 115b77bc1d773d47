// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include <event2/event.h>

namespace nbdm {

// Owners of what libevent makes. An event is destroyed before its loop, on the loop's thread.
struct EventFree {
    void operator()(event* freed) const noexcept { event_free(freed); }
};
using EventPointer = std::unique_ptr<event, EventFree>;

struct EventBaseFree {
    void operator()(event_base* base) const noexcept { event_base_free(base); }
};
using EventBasePointer = std::unique_ptr<event_base, EventBaseFree>;

}  // namespace nbdm
