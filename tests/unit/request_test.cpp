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
    std::uint64_t length;
    RequestRules rules;
    Error expected;
};

constexpr RequestRules kPlain{.size_bytes = 1 << 20};
constexpr RequestRules kReadOnly{.size_bytes = 1 << 20, .read_only = true};
constexpr RequestRules kStructured{
    .size_bytes = 1 << 20, .replies = ReplyStyle::structured, .block_status = true};
constexpr RequestRules kExtended{
    .size_bytes = std::uint64_t{1} << 40, .replies = ReplyStyle::extended, .block_status = true};
constexpr RequestRules kHuge{.size_bytes = std::uint64_t{1} << 40};
constexpr std::uint32_t kMiB = 1 << 20;

const Case kCases[] = {
    {"ReadOfTheLastByte", Command::read, 0, kMiB - 1, 1, kPlain, Error::none},
    {"ReadPastTheEnd", Command::read, 0, kMiB - 1, 2, kPlain, Error::invalid},
    {"ReadAtAnOverflowingOffset", Command::read, 0, UINT64_MAX, 2, kPlain, Error::invalid},
    {"ReadOfNothing", Command::read, 0, 0, 0, kPlain, Error::invalid},
    {"ReadBeyondTheLimit", Command::read, 0, 0, (64 << 20) + 1, kHuge, Error::overflow},
    {"ReadBeyondTheLimitAndTheEnd", Command::read, 0, UINT64_MAX, UINT32_MAX, kHuge,
     Error::invalid},
    {"DfOf32MiB", Command::read, wire::kDf, 0, 32 << 20, kExtended, Error::none},
    {"DfBeyondWhatIsAdvertised", Command::read, wire::kDf, 0, (32 << 20) + 1, kExtended,
     Error::overflow},
    {"ReadOf64MiB", Command::read, 0, 0, 64 << 20, kHuge, Error::none},
    {"DfWithoutStructuredReplies", Command::read, wire::kDf, 0, 1, kPlain, Error::invalid},
    {"DfWithStructuredReplies", Command::read, wire::kDf, 0, 1, kStructured, Error::none},
    {"WritePastTheEnd", Command::write, 0, kMiB, 1, kPlain, Error::no_space},
    {"WriteToAReadOnlyExport", Command::write, 0, 0, 1, kReadOnly, Error::perm},
    {"WriteWithFua", Command::write, wire::kFua, 0, 1, kPlain, Error::none},
    {"WriteWithAnUnknownFlag", Command::write, 1 << 9, 0, 1, kPlain, Error::invalid},
    {"WriteBeyondTheLimit", Command::write, 0, 0, (64 << 20) + 1, kHuge, Error::invalid},
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
    {"ExtendedWrite", Command::write, wire::kPayloadLength, 0, 1, kExtended, Error::none},
    {"ExtendedWriteWithoutAPayload", Command::write, 0, 0, 1, kExtended, Error::invalid},
    {"ExtendedReadWithAPayload", Command::read, wire::kPayloadLength, 0, 1, kExtended,
     Error::invalid},
    {"CompactWriteWithTheExtendedFlag", Command::write, wire::kPayloadLength, 0, 1, kPlain,
     Error::invalid},
    {"ExtendedZeroesBeyond32Bits", Command::write_zeroes, 0, 0, std::uint64_t{1} << 40, kExtended,
     Error::none},
    {"ExtendedTrimPastTheEnd", Command::trim, 0, 1, std::uint64_t{1} << 40, kExtended,
     Error::invalid},
    {"ExtendedReadBeyond32Bits", Command::read, 0, 0, std::uint64_t{1} << 33, kExtended,
     Error::overflow},
    {"ExtendedStatusBeyond32Bits", Command::block_status, 0, 0, std::uint64_t{1} << 40, kExtended,
     Error::none},
    {"StatusPayloadOfOneContext", Command::block_status, wire::kPayloadLength, 0, 12, kExtended,
     Error::none},
    {"StatusPayloadOfNoContext", Command::block_status, wire::kPayloadLength, 0, 8, kExtended,
     Error::invalid},
    {"StatusPayloadThatIsCut", Command::block_status, wire::kPayloadLength, 0, 13, kExtended,
     Error::invalid},
    {"StatusPayloadThatIsTooLong", Command::block_status, wire::kPayloadLength, 0, 8 + 65 * 4,
     kExtended, Error::invalid},
    {"AnUnknownCommand", static_cast<Command>(42), 0, 0, 0, kPlain, Error::invalid},
};

class Validate : public testing::TestWithParam<Case> {};

}  // namespace

TEST_P(Validate, AnswersAsTheSpecificationSays) {
    const Case& each = GetParam();
    const bool has_payload = each.rules.replies == ReplyStyle::extended
                                 ? (each.flags & wire::kPayloadLength) != 0
                                 : each.command == Command::write;
    const RequestHead head{.command = each.command,
                           .flags = each.flags,
                           .cookie = 1,
                           .offset = each.offset,
                           .length = each.length,
                           .has_payload = has_payload};
    EXPECT_EQ(validate(head, each.rules), each.expected);
}

TEST(RequestHead, BothFormsSayTheSame) {
    const wire::RequestHeader compact{.magic = wire::kRequestMagic,
                                      .flags = wire::kFua,
                                      .command = static_cast<std::uint16_t>(Command::write),
                                      .cookie = 7,
                                      .offset = 4096,
                                      .length = 512};
    const wire::ExtendedRequestHeader extended{
        .magic = wire::kExtendedRequestMagic,
        .flags = wire::kFua | wire::kPayloadLength,
        .command = static_cast<std::uint16_t>(Command::write),
        .cookie = 7,
        .offset = 4096,
        .length = 512};
    const auto one = RequestHead::decode(wire::bytes_of(compact), ReplyStyle::structured);
    const auto other = RequestHead::decode(wire::bytes_of(extended), ReplyStyle::extended);
    ASSERT_TRUE(one && other);
    EXPECT_EQ(one->cookie, other->cookie);
    EXPECT_EQ(one->offset, other->offset);
    EXPECT_EQ(one->length, other->length);
    EXPECT_TRUE(one->has_payload && other->has_payload);
    EXPECT_FALSE(RequestHead::decode(wire::bytes_of(extended), ReplyStyle::simple));
}

INSTANTIATE_TEST_SUITE_P(Requests, Validate, testing::ValuesIn(kCases),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace nbdm
