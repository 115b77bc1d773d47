// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "tests/fuzz/speaker.h"

namespace nbdm::fuzz {

// The first part of a conversation: flags and options.
class OptionSpeaker : private Speaker {
  public:
    using Speaker::Speaker;
    // Whether extended headers are asked for.
    [[nodiscard]] bool say_handshake();

  private:
    void say_any_option();
    void say_option(wire::Option option, const Bytes& data);
    void append_counted(Bytes& to, std::string_view text);
    [[nodiscard]] std::string some_export();
    [[nodiscard]] Bytes go_data(const std::string& name);
    [[nodiscard]] Bytes context_data(const std::string& name);
};

}  // namespace nbdm::fuzz
