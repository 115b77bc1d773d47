// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <stop_token>

namespace nbdm {

// Calls work(0) to work(count - 1), each on a thread of its own, and returns when all have
// returned; `tick` is called in the calling thread meanwhile, some 50 times a second, until
// something fails. When one of them or `tick` throws, all are asked to stop, and what was thrown
// first is thrown once they have ended.
void in_parallel(std::size_t count,
                 const std::function<void(std::size_t, const std::stop_token&)>& work,
                 const std::function<void()>& tick);

}  // namespace nbdm
