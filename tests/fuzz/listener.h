// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "server/nbd_wire.h"
#include "tests/fuzz/content.h"
#include "tests/fuzz/conversation.h"

namespace nbdm::fuzz {

// What the server answers to an honest client: each option in its turn, then each request once, in
// the form that was agreed on, with data that may stand on the disk. Throws std::runtime_error when
// it is anything else, and where a request that has to succeed does not. What is answered to a liar
// is not looked at.
class Listener {
  public:
    // `content` is that of "disk", and is told of the answers; all other exports are zero. All
    // outlive it.
    Listener(const Conversation& conversation, Content& content);

    void hear(std::span<const std::byte> bytes);
    // The server has closed: everything that was owed has to have come.
    void hear_end() const;

  private:
    struct Asked {
        const Said* said;
        std::size_t change;  // its number in the content
        std::optional<wire::Error> answer;
        std::uint64_t data_bytes = 0;  // that have come
    };
    using Step = void (Listener::*)();
    void expect(std::size_t bytes, Step then);
    void expect_data(std::uint64_t bytes, std::optional<std::uint64_t> offset, Step then);
    void take_data(std::span<const std::byte> data);
    template <typename T>
    [[nodiscard]] T heard() const {
        return wire::load<T>(heard_);
    }

    void greeting();
    void next_option();
    void option_reply();
    void export_name_reply();
    void next_reply();
    void reply_magic();
    void simple_reply();
    template <typename Header>
    void chunk();
    void chunk_fields();
    void chunk_ended();
    void finish(wire::Error error);
    [[nodiscard]] Asked& find(std::uint64_t cookie);
    [[nodiscard]] bool reads_disk() const { return conversation_.export_name == "disk"; }

    const Conversation& conversation_;
    Content& content_;
    std::unordered_map<std::uint64_t, Asked> asked_;  // by cookie
    std::size_t option_ = 0;                          // that is answered next
    bool structured_ = false;
    bool extended_ = false;

    // The next bytes: of a fixed size, or data that is looked at as it comes.
    Bytes heard_;
    std::size_t expected_ = 0;
    std::uint64_t data_left_ = 0;
    std::optional<std::uint64_t> data_offset_;  // nothing: it is passed over
    Step then_ = nullptr;

    // The chunk that is being heard.
    Asked* current_ = nullptr;
    std::uint16_t chunk_flags_ = 0;
    wire::Chunk chunk_type_{};
    std::uint64_t chunk_left_ = 0;
    wire::Error chunk_error_ = wire::Error::none;
};

}  // namespace nbdm::fuzz
