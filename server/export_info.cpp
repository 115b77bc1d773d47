// SPDX-License-Identifier: Apache-2.0
#include "server/export_info.h"

#include <cstring>
#include <string>

#include "server/request_limits.h"

namespace nbdm {

namespace {

template <typename Fields>
std::vector<std::byte> info_of(const Fields& fields) {
    const auto bytes = wire::bytes_of(fields);
    return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> info_of(wire::Info type, const std::string& text) {
    std::vector<std::byte> info(sizeof(wire::Big16) + text.size());
    const wire::Big16 type_on_wire = static_cast<std::uint16_t>(type);
    std::memcpy(info.data(), &type_on_wire, sizeof(type_on_wire));
    std::memcpy(info.data() + sizeof(type_on_wire), text.data(), text.size());
    return info;
}

// What is not aligned is served too, slowly; a disk that ends within a block needs it.
wire::InfoBlockSize block_size_of(const DiskFile& file) {
    const std::uint32_t unit = file.request_alignment();
    return {.minimum_bytes = is_aligned(file.size_bytes(), unit) ? unit : 1,
            .preferred_bytes = file.preferred_bytes(),
            .maximum_bytes = kMaxPayloadBytes};
}

}  // namespace

std::uint16_t transmission_flags(const Export& served, ReplyStyle replies, bool selected) noexcept {
    std::uint16_t flags = wire::kHasFlags | wire::kSendFlush | wire::kSendFua |
                          wire::kCanMultiConn | wire::kSendCache;
    flags |= served.read_only()
                 ? wire::kReadOnly
                 : static_cast<std::uint16_t>(wire::kSendTrim | wire::kSendWriteZeroes |
                                              wire::kSendFastZero);
    if (replies != ReplyStyle::simple) {
        flags |= wire::kSendDf;
    }
    if (replies == ReplyStyle::extended && selected) {
        flags |= wire::kStatusPayload;
    }
    return flags;
}

std::vector<std::vector<std::byte>> info_replies(const Export& served, const wire::InfoExport& told,
                                                 InfoTypes wanted) {
    const auto is_wanted = [&](wire::Info type) {
        return wanted.test(static_cast<std::size_t>(type));
    };
    std::vector<std::vector<std::byte>> replies;
    replies.push_back(info_of(told));
    if (is_wanted(wire::Info::name)) {
        replies.push_back(info_of(wire::Info::name, served.name()));
    }
    const std::string& description = served.options().description;
    if (is_wanted(wire::Info::description) && !description.empty()) {
        replies.push_back(info_of(wire::Info::description, description));
    }
    if (is_wanted(wire::Info::block_size)) {
        replies.push_back(info_of(block_size_of(served.file())));
    }
    return replies;
}

}  // namespace nbdm
