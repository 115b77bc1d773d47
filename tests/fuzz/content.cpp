// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/content.h"

#include <algorithm>
#include <cstring>

namespace nbdm::fuzz {

using wire::Command;
using wire::Error;

namespace {

// An error that says that nothing was done.
bool refused(const std::optional<Error>& answer) {
    return answer && *answer != Error::none && *answer != Error::io && *answer != Error::no_space;
}

// The first place of `range` where the two differ.
std::optional<std::uint64_t> first_difference(const Bytes& a, const Bytes& b, Range range) {
    if (std::memcmp(&a[range.offset], &b[range.offset], range.length) == 0) {
        return std::nullopt;
    }
    std::uint64_t at = range.offset;
    while (a[at] == b[at]) {
        ++at;
    }
    return at;
}

}  // namespace

std::size_t Content::expect(const Said& said) {
    Change change{.range = {},
                  .value = said.command == Command::write ? said.fill : std::byte{0},
                  .leaves_old = said.command == Command::trim,
                  .answer = {}};
    const bool changes = said.command == Command::write || said.command == Command::trim ||
                         said.command == Command::write_zeroes;
    if (changes && Range::fits(said.offset, said.length, before_.size())) {
        change.range = {said.offset, said.length};
    }
    changes_.push_back(change);
    return changes_.size() - 1;
}

void Content::prepare() {
    std::vector<std::uint64_t> edges;
    for (const Change& change : changes_) {
        if (!change.range.empty()) {
            edges.push_back(change.range.offset);
            edges.push_back(change.range.end());
        }
    }
    std::sort(edges.begin(), edges.end());
    edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
    segments_.clear();
    for (std::size_t i = 1; i < edges.size(); ++i) {
        Segment segment{
            .range = Range::from_to(edges[i - 1], edges[i]), .changes = {}, .values = {}};
        for (std::size_t number = 0; number < changes_.size(); ++number) {
            const Range& range = changes_[number].range;
            if (range.offset <= segment.range.offset && segment.range.end() <= range.end()) {
                segment.changes.push_back(number);
                segment.values.set(std::to_integer<std::size_t>(changes_[number].value));
            }
        }
        if (!segment.changes.empty()) {
            segments_.push_back(std::move(segment));
        }
    }
}

bool Content::may_be_read(std::uint64_t offset, std::span<const std::byte> data) const {
    if (std::memcmp(&before_[offset], data.data(), data.size()) == 0) {
        return true;
    }
    auto segment = std::lower_bound(
        segments_.begin(), segments_.end(), offset,
        [](const Segment& each, std::uint64_t at) { return each.range.end() <= at; });
    for (std::size_t i = 0; i < data.size(); ++i) {
        const std::uint64_t at = offset + i;
        while (segment != segments_.end() && segment->range.end() <= at) {
            ++segment;
        }
        const bool may_change = segment != segments_.end() && segment->range.offset <= at;
        if (data[i] != before_[at] &&
            !(may_change && segment->values.test(std::to_integer<std::size_t>(data[i])))) {
            return false;
        }
    }
    return true;
}

std::optional<std::uint64_t> Content::first_wrong(const Segment& segment,
                                                  const Bytes& after) const {
    std::bitset<256> values;
    bool old_may_stand = true;
    for (const std::size_t number : segment.changes) {
        const Change& change = changes_[number];
        if (!refused(change.answer)) {
            values.set(std::to_integer<std::size_t>(change.value));
        }
        old_may_stand = old_may_stand && (change.leaves_old || change.answer != Error::none);
    }
    for (std::uint64_t at = segment.range.offset; at < segment.range.end(); ++at) {
        if (!values.test(std::to_integer<std::size_t>(after[at])) &&
            !(old_may_stand && after[at] == before_[at])) {
            return at;
        }
    }
    return std::nullopt;
}

std::optional<std::uint64_t> Content::first_wrong(const Bytes& after) const {
    std::uint64_t begin = 0;
    for (const Segment& segment : segments_) {
        for (const auto& wrong :
             {first_difference(before_, after, Range::from_to(begin, segment.range.offset)),
              first_wrong(segment, after)}) {
            if (wrong) {
                return wrong;
            }
        }
        begin = segment.range.end();
    }
    return first_difference(before_, after, Range::from_to(begin, before_.size()));
}

void Content::clear() {
    std::fill(before_.begin(), before_.end(), std::byte{0});
}

void Content::accept(const Bytes& after) {
    before_ = after;
    changes_.clear();
    segments_.clear();
}

}  // namespace nbdm::fuzz
