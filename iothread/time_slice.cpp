// SPDX-License-Identifier: Apache-2.0
#include "iothread/time_slice.h"

#include <cstdint>
#include <sched.h>
#include <unistd.h>

#include <sys/syscall.h>

namespace nbdm {

namespace {

// As sched_setattr(2) has it: neither the C library nor, beside <sched.h>, the kernel's own header
// can be had for it.
struct SchedulingAttributes {
    std::uint32_t size;
    std::uint32_t policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime_ns;  // the slice, where the policy is SCHED_OTHER
    std::uint64_t deadline_ns;
    std::uint64_t period_ns;
};
static_assert(sizeof(SchedulingAttributes) == 48);  // SCHED_ATTR_SIZE_VER0

constexpr std::uint64_t kLongestSliceNs = 100'000'000;  // that the kernel grants

}  // namespace

void take_long_turns() noexcept {
    SchedulingAttributes attributes{};
    if (::syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) == 0 &&
        attributes.policy == SCHED_OTHER) {
        attributes.size = sizeof(attributes);
        attributes.runtime_ns = kLongestSliceNs;
        ::syscall(SYS_sched_setattr, 0, &attributes, 0);
    }
}

}  // namespace nbdm
