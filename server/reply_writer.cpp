// SPDX-License-Identifier: Apache-2.0
#include "server/reply_writer.h"

#include <array>
#include <cstring>
#include <type_traits>

#include "server/request_limits.h"

namespace nbdm {

using wire::Chunk;
using wire::Command;
using wire::Error;

void ReplyWriter::simple(Request& request, Error error, std::span<const std::byte> data) {
    const wire::SimpleReply reply{.error = static_cast<std::uint32_t>(error),
                                  .cookie = request.cookie};
    queue_.push(wire::bytes_of(reply), data, &request);
}

// A chunk up to its data. Returns the bytes of it.
template <typename Fields>
std::size_t ReplyWriter::put_header(std::span<std::byte> into, const Request& request, Chunk type,
                                    const Fields& fields, std::size_t data_bytes,
                                    bool last) const noexcept {
    constexpr std::size_t kFieldBytes = std::is_empty_v<Fields> ? 0 : sizeof(Fields);
    static_assert(sizeof(wire::ExtendedChunkHeader) + kFieldBytes <= ReplyQueue::kMaxHeaderBytes);
    const std::uint16_t flags = last ? wire::kChunkDone : std::uint16_t{0};
    const std::size_t payload_bytes = kFieldBytes + data_bytes;
    std::size_t size = 0;
    const auto append = [&](const auto& part, std::size_t part_bytes) {
        std::memcpy(into.data() + size, &part, part_bytes);
        size += part_bytes;
    };
    if (style_ == ReplyStyle::extended) {
        append(wire::ExtendedChunkHeader{.flags = flags,
                                         .type = static_cast<std::uint16_t>(type),
                                         .cookie = request.cookie,
                                         .offset = request.range.offset,
                                         .length = payload_bytes},
               sizeof(wire::ExtendedChunkHeader));
    } else {
        append(wire::ChunkHeader{.flags = flags,
                                 .type = static_cast<std::uint16_t>(type),
                                 .cookie = request.cookie,
                                 .length = static_cast<std::uint32_t>(payload_bytes)},
               sizeof(wire::ChunkHeader));
    }
    append(fields, kFieldBytes);
    return size;
}

template <typename Fields>
void ReplyWriter::chunk(Request& request, Chunk type, const Fields& fields,
                        std::span<const std::byte> data, bool last) {
    std::array<std::byte, ReplyQueue::kMaxHeaderBytes> header;
    const std::size_t size = put_header(header, request, type, fields, data.size(), last);
    queue_.push(std::span(header).first(size), data, last ? &request : nullptr);
}

// No chunk carries more than was advertised, also when a client asks for more at once.
void ReplyWriter::data_chunks(Request& request, Range range, bool last) {
    for (; range.length > kMaxPayloadBytes; range = range.after(kMaxPayloadBytes)) {
        data_chunk(request, range.first(kMaxPayloadBytes), false);
    }
    data_chunk(request, range, last);
}

void ReplyWriter::data_chunk(Request& request, Range range, bool last) {
    const wire::OffsetDataFields fields{.offset = range.offset};
    if (!request.from_file) {
        const std::byte* data = request.buffer.data() + (range.offset - request.range.offset);
        chunk(request, Chunk::offset_data, fields, {data, range.length}, last);
        return;
    }
    std::array<std::byte, ReplyQueue::kMaxHeaderBytes> header;
    const std::size_t size =
        put_header(header, request, Chunk::offset_data, fields, range.length, last);
    queue_.push_file(std::span(header).first(size), range, last ? &request : nullptr);
}

void ReplyWriter::done(Request& request) {
    if (style_ == ReplyStyle::extended) {
        chunk(request, Chunk::none, wire::NoFields{}, {}, true);
    } else {
        simple(request, Error::none, {});
    }
}

void ReplyWriter::error(Request& request, Error error) {
    const bool in_chunks =
        style_ == ReplyStyle::extended ||
        (style_ == ReplyStyle::structured &&
         (request.command == Command::read || request.command == Command::block_status));
    if (in_chunks) {
        const wire::ErrorFields fields{.error = static_cast<std::uint32_t>(error),
                                       .message_bytes = 0};
        chunk(request, Chunk::error, fields, {}, true);
    } else {
        simple(request, error, {});
    }
}

void ReplyWriter::read(Request& request) {
    if (style_ == ReplyStyle::simple && request.from_file) {
        const wire::SimpleReply reply{.error = 0, .cookie = request.cookie};
        queue_.push_file(wire::bytes_of(reply), request.range, &request);
        return;
    }
    if (style_ == ReplyStyle::simple) {
        simple(request, Error::none, {request.buffer.data(), request.range.length});
        return;
    }
    for (std::size_t i = 0; i < request.extent_count; ++i) {
        const FileExtent& extent = request.extents[i];
        const bool last = i + 1 == request.extent_count;
        if (extent.hole) {
            const wire::OffsetHoleFields fields{
                .offset = extent.range.offset,
                .hole_bytes = static_cast<std::uint32_t>(extent.range.length)};
            chunk(request, Chunk::offset_hole, fields, {}, last);
        } else {
            data_chunks(request, extent.range, last);
        }
    }
}

void ReplyWriter::block_status(Request& request, std::uint32_t context_id,
                               std::span<const wire::BlockDescriptor> descriptors, bool last) {
    chunk(request, Chunk::block_status, wire::BlockStatusFields{.context_id = context_id},
          std::as_bytes(descriptors), last);
}

void ReplyWriter::block_status(Request& request, std::uint32_t context_id,
                               std::span<const wire::ExtendedBlockDescriptor> descriptors,
                               bool last) {
    const wire::ExtendedBlockStatusFields fields{
        .context_id = context_id, .descriptors = static_cast<std::uint32_t>(descriptors.size())};
    chunk(request, Chunk::extended_block_status, fields, std::as_bytes(descriptors), last);
}

}  // namespace nbdm
