// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "server/nbd_wire.h"

namespace nbdm {

// Takes parts off the front of an option's data; once one was malformed, everything is.
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
        std::string text{reinterpret_cast<const char*>(part.data()), part.size()};
        malformed_ = malformed_ || bytes > wire::kMaxStringBytes || text.find('\0') != text.npos;
        return text;
    }
    // Everything was there and as it should be, and nothing is left.
    [[nodiscard]] bool complete() const noexcept { return !malformed_ && data_.empty(); }
    // Something was missing, or a string longer than the protocol's or with a zero byte in it.
    [[nodiscard]] bool malformed() const noexcept { return malformed_; }

  private:
    std::span<const std::byte> take(std::size_t bytes) noexcept {
        if (malformed_ || bytes > data_.size()) {
            malformed_ = true;
            return {};
        }
        const auto part = data_.first(bytes);
        data_ = data_.subspan(bytes);
        return part;
    }

    std::span<const std::byte> data_;
    bool malformed_ = false;
};

}  // namespace nbdm
