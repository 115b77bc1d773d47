// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <stop_token>

namespace nbdm {

// Calls work(0) to work(count - 1), each on a thread of its own, and returns when all have
// returned; `tick` is called in the calling thread meanwhile, some dozen times a second. When one
// of them throws, the others are asked to stop, and what was thrown first is thrown once all have
// ended.
void in_parallel(std::size_t count,
                 const std::function<void(std::size_t, const std::stop_token&)>& work,
                 const std::function<void()>& tick);

}  // namespace nbdm
