// SPDX-License-Identifier: Apache-2.0
#include "server/request.h"

#include <string>

#include <gtest/gtest.h>

namespace nbdm {

namespace {

using wire::Command;
using wire::Error;

struct Case {
    const char* name;
    Command command;
    std::uint16_t flags;
    std::uint64_t offset;
    std::uint32_t length;
    RequestRules rules;
    Error expected;
};

constexpr RequestRules kPlain{.size_bytes = 1 << 20};
constexpr RequestRules kReadOnly{.size_bytes = 1 << 20, .read_only = true};
constexpr RequestRules kStructured{
    .size_bytes = 1 << 20, .structured_replies = true, .block_status = true};
constexpr RequestRules kHuge{.size_bytes = std::uint64_t{1} << 40};
constexpr std::uint32_t kMiB = 1 << 20;

const Case kCases[] = {
    {"ReadOfTheLastByte", Command::read, 0, kMiB - 1, 1, kPlain, Error::none},
    {"ReadPastTheEnd", Command::read, 0, kMiB - 1, 2, kPlain, Error::invalid},
    {"ReadAtAnOverflowingOffset", Command::read, 0, UINT64_MAX, 2, kPlain, Error::invalid},
    {"ReadOfNothing", Command::read, 0, 0, 0, kPlain, Error::invalid},
    {"ReadBeyondTheLimit", Command::read, 0, 0, (64 << 20) + 1, kHuge, Error::overflow},
    {"ReadOf64MiB", Command::read, 0, 0, 64 << 20, kHuge, Error::none},
    {"DfWithoutStructuredReplies", Command::read, wire::kDf, 0, 1, kPlain, Error::invalid},
    {"DfWithStructuredReplies", Command::read, wire::kDf, 0, 1, kStructured, Error::none},
    {"WritePastTheEnd", Command::write, 0, kMiB, 1, kPlain, Error::no_space},
    {"WriteToAReadOnlyExport", Command::write, 0, 0, 1, kReadOnly, Error::perm},
    {"WriteWithFua", Command::write, wire::kFua, 0, 1, kPlain, Error::none},
    {"WriteWithAnUnknownFlag", Command::write, 1 << 9, 0, 1, kPlain, Error::invalid},
    {"WriteBeyondTheLimit", Command::write, 0, 0, (64 << 20) + 1, kHuge, Error::overflow},
    {"ZeroesOfAnyLength", Command::write_zeroes, wire::kNoHole, 0, UINT32_MAX, kHuge, Error::none},
    {"ZeroesPastTheEnd", Command::write_zeroes, 0, 1, kMiB, kPlain, Error::no_space},
    {"FastZeroes", Command::write_zeroes, wire::kFastZero, 0, 1, kPlain, Error::none},
    {"NoHoleOnATrim", Command::trim, wire::kNoHole, 0, 1, kPlain, Error::invalid},
    {"TrimOnAReadOnlyExport", Command::trim, 0, 0, 1, kReadOnly, Error::perm},
    {"FlushOnAReadOnlyExport", Command::flush, 0, 0, 0, kReadOnly, Error::none},
    {"FlushWithARange", Command::flush, 0, 0, 512, kPlain, Error::invalid},
    {"BlockStatusWithoutAContext", Command::block_status, 0, 0, 1, kPlain, Error::invalid},
    {"BlockStatus", Command::block_status, wire::kReqOne, 0, 1, kStructured, Error::none},
    {"BlockStatusOfNothing", Command::block_status, 0, 0, 0, kStructured, Error::invalid},
    {"AnUnknownCommand", static_cast<Command>(42), 0, 0, 0, kPlain, Error::invalid},
};

class Validate : public testing::TestWithParam<Case> {};

}  // namespace

TEST_P(Validate, AnswersAsTheSpecificationSays) {
    const Case& each = GetParam();
    const wire::RequestHeader header{.magic = wire::kRequestMagic,
                                     .flags = each.flags,
                                     .command = static_cast<std::uint16_t>(each.command),
                                     .cookie = 1,
                                     .offset = each.offset,
                                     .length = each.length};
    EXPECT_EQ(validate(header, each.rules), each.expected);
}

INSTANTIATE_TEST_SUITE_P(Requests, Validate, testing::ValuesIn(kCases),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace nbdm
