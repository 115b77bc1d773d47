// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "iothread/range.h"
#include "server/nbd_wire.h"
#include "tests/fuzz/conversation.h"

namespace nbdm::fuzz {

// What stands on a disk, and what requests that run beside each other, in any order, may make of
// it: each byte is what one of those that reach it has left there, and what it was before only
// where none of them was answered with success.
class Content {
  public:
    explicit Content(std::uint64_t bytes) : before_(bytes) {}

    // All of it is zero, by other ways than requests.
    void clear();

    // Something about to be asked of the disk; its number.
    std::size_t expect(const Said& said);
    void prepare();
    // Whether a read while all that is under way may bring this.
    [[nodiscard]] bool may_be_read(std::uint64_t offset, std::span<const std::byte> data) const;

    // How it was answered; it may have been carried out without an answer.
    void answered(std::size_t number, wire::Error error) { changes_[number].answer = error; }
    // The first byte that is not as it must be, now that it is over; nothing when all are.
    [[nodiscard]] std::optional<std::uint64_t> first_wrong(const Bytes& after) const;

    [[nodiscard]] const Bytes& before() const { return before_; }
    // The next requests come to this.
    void accept(const Bytes& after);

  private:
    struct Change {
        Range range;
        std::byte value{};
        bool leaves_old = false;  // or lets stand what was there
        std::optional<wire::Error> answer;
    };
    // A range that the same changes reach.
    struct Segment {
        Range range;
        std::vector<std::size_t> changes;
        std::bitset<256> values;
    };
    [[nodiscard]] std::optional<std::uint64_t> first_wrong(const Segment& segment,
                                                           const Bytes& after) const;

    Bytes before_;
    std::vector<Change> changes_;
    std::vector<Segment> segments_;  // in order; between them nothing changes
};

}  // namespace nbdm::fuzz
