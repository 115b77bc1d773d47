// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "server/nbd_wire.h"

namespace nbdm {

// Takes parts off the front of an option's data; once something was missing, everything is.
//
// Threads: a plain value; the data outlives it.
class OptionCursor {
  public:
    explicit OptionCursor(std::span<const std::byte> data) noexcept : data_(data) {}

    template <typename T>
    T number() noexcept {
        const auto bytes = take(sizeof(T));
        if (bytes.size() != sizeof(T)) {
            return 0;
        }
        return wire::load<wire::Big<T>>(bytes);
    }
    std::string string(std::size_t bytes) {
        const auto part = take(bytes);
        return {reinterpret_cast<const char*>(part.data()), part.size()};
    }
    // Everything was there and nothing is left.
    [[nodiscard]] bool complete() const noexcept { return !missing_ && data_.empty(); }
    [[nodiscard]] bool missing() const noexcept { return missing_; }

  private:
    std::span<const std::byte> take(std::size_t bytes) noexcept {
        if (missing_ || bytes > data_.size()) {
            missing_ = true;
            return {};
        }
        const auto part = data_.first(bytes);
        data_ = data_.subspan(bytes);
        return part;
    }

    std::span<const std::byte> data_;
    bool missing_ = false;
};

}  // namespace nbdm
