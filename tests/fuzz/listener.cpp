// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/listener.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

namespace nbdm::fuzz {

using wire::Chunk;
using wire::Command;
using wire::Error;
using wire::Option;

namespace {

void must(bool holds, const std::string& otherwise) {
    if (!holds) {
        throw std::runtime_error(otherwise);
    }
}

std::string text_of(const Said& said) {
    return "command " + std::to_string(static_cast<int>(said.command)) + " of " +
           std::to_string(said.length) + " bytes at " + std::to_string(said.offset);
}

}  // namespace

Listener::Listener(const Conversation& conversation, Content& content)
    : conversation_(conversation), content_(content) {
    if (!conversation.honest) {
        return;
    }
    for (const Said& said : conversation.requests) {
        Asked asked{.said = &said, .change = 0, .answer = {}};
        if (reads_disk()) {
            asked.change = content.expect(said);
        }
        asked_.emplace(said.cookie, asked);
    }
    expect(sizeof(wire::Greeting), &Listener::greeting);
}

void Listener::expect(std::size_t bytes, Step then) {
    heard_.clear();
    expected_ = bytes;
    then_ = then;
}

void Listener::expect_data(std::uint64_t bytes, std::optional<std::uint64_t> offset, Step then) {
    expect(0, then);
    data_left_ = bytes;
    data_offset_ = offset;
    if (bytes == 0) {
        (this->*then_)();
    }
}

void Listener::hear(std::span<const std::byte> bytes) {
    while (conversation_.honest && !bytes.empty()) {
        if (data_left_ > 0) {
            const auto part = bytes.first(std::min<std::uint64_t>(bytes.size(), data_left_));
            bytes = bytes.subspan(part.size());
            take_data(part);
            continue;
        }
        const auto part = bytes.first(std::min(bytes.size(), expected_ - heard_.size()));
        heard_.insert(heard_.end(), part.begin(), part.end());
        bytes = bytes.subspan(part.size());
        if (heard_.size() == expected_) {
            (this->*then_)();
        }
    }
}

void Listener::take_data(std::span<const std::byte> data) {
    if (data_offset_) {
        const bool right = reads_disk() ? content_.may_be_read(*data_offset_, data)
                                        : std::all_of(data.begin(), data.end(), [](std::byte each) {
                                              return each == std::byte{0};
                                          });
        must(right,
             "what is read near " + std::to_string(*data_offset_) + " has never been on the disk");
        *data_offset_ += data.size();
    }
    data_left_ -= data.size();
    if (data_left_ == 0) {
        (this->*then_)();
    }
}

void Listener::hear_end() const {
    for (const auto& [cookie, asked] : asked_) {
        must(!conversation_.goodbye || asked.answer, text_of(*asked.said) + " was never answered");
    }
}

// --- Handshake ---

void Listener::greeting() {
    must(heard<wire::Greeting>().option_magic == wire::kOptionMagic, "no greeting");
    next_option();
}

void Listener::next_option() {
    if (conversation_.options[option_] == Option::export_name) {
        expect(sizeof(wire::ExportNameReply), &Listener::export_name_reply);
    } else {
        expect(sizeof(wire::OptionReplyHeader), &Listener::option_reply);
    }
}

void Listener::option_reply() {
    const auto header = heard<wire::OptionReplyHeader>();
    const Option option = conversation_.options[option_];
    must(header.magic == wire::kOptionReplyMagic, "an option's answer has no magic");
    must(header.option == static_cast<std::uint32_t>(option), "the answer to another option");
    must(header.length <= 2 * wire::kMaxStringBytes, "an option's answer is too long");
    const bool acknowledged = header.type == static_cast<std::uint32_t>(wire::OptionReply::ack);
    const bool last = acknowledged || (header.type & wire::kErrorBit) != 0;
    structured_ = structured_ || (acknowledged && option == Option::structured_reply);
    extended_ = extended_ || (acknowledged && option == Option::extended_headers);
    if (last && option == Option::go) {
        must(acknowledged, "the export is refused");
        next_reply();
        return;
    }
    option_ += last ? 1 : 0;
    expect_data(header.length, {}, &Listener::next_option);
}

void Listener::export_name_reply() {
    next_reply();
}

// --- Transmission ---

void Listener::next_reply() {
    expect(sizeof(wire::Big32), &Listener::reply_magic);
}

void Listener::reply_magic() {
    const std::uint32_t magic = heard<wire::Big32>();
    const Bytes start = heard_;
    if (magic == wire::kExtendedReplyMagic && extended_) {
        expect(sizeof(wire::ExtendedChunkHeader), &Listener::chunk<wire::ExtendedChunkHeader>);
    } else if (magic == wire::kStructuredReplyMagic && structured_ && !extended_) {
        expect(sizeof(wire::ChunkHeader), &Listener::chunk<wire::ChunkHeader>);
    } else if (magic == wire::kSimpleReplyMagic && !extended_) {
        expect(sizeof(wire::SimpleReply), &Listener::simple_reply);
    } else {
        throw std::runtime_error("no reply, or one of a form that was not agreed on");
    }
    heard_ = start;
}

Listener::Asked& Listener::find(std::uint64_t cookie) {
    const auto found = asked_.find(cookie);
    must(found != asked_.end(), "an answer to nothing that was asked");
    must(!found->second.answer, text_of(*found->second.said) + " is answered twice");
    return found->second;
}

void Listener::finish(Error error) {
    const Said& said = *current_->said;
    const bool read = said.command == Command::read && error == Error::none;
    must(!read || current_->data_bytes == said.length,
         text_of(said) + " brought " + std::to_string(current_->data_bytes) + " bytes");
    must(error == Error::none || !said.must_succeed,
         text_of(said) + " failed with error " + std::to_string(static_cast<int>(error)));
    // Who finds no memory waits.
    must(error != Error::no_memory, text_of(said) + " was refused for want of memory");
    current_->answer = error;
    if (reads_disk()) {
        content_.answered(current_->change, error);
    }
    next_reply();
}

void Listener::simple_reply() {
    const auto reply = heard<wire::SimpleReply>();
    current_ = &find(reply.cookie);
    const Said& said = *current_->said;
    const auto error = static_cast<Error>(std::uint32_t{reply.error});
    must(!structured_ || (said.command != Command::read && said.command != Command::block_status),
         text_of(said) + " is answered without chunks");
    chunk_error_ = error;
    chunk_flags_ = wire::kChunkDone;
    if (said.command == Command::read && error == Error::none) {
        current_->data_bytes = said.length;
        expect_data(said.length, said.offset, &Listener::chunk_ended);
    } else {
        finish(error);
    }
}

template <typename Header>
void Listener::chunk() {
    const auto header = heard<Header>();
    current_ = &find(header.cookie);
    chunk_flags_ = header.flags;
    chunk_type_ = static_cast<Chunk>(std::uint16_t{header.type});
    chunk_left_ = header.length;
    chunk_error_ = Error::none;
    const Said& said = *current_->said;
    const bool done = (chunk_flags_ & wire::kChunkDone) != 0;
    std::size_t field_bytes = 0;
    switch (chunk_type_) {
        case Chunk::none:
            must(done && said.command != Command::read && chunk_left_ == 0, "an empty chunk");
            break;
        case Chunk::offset_data:
            field_bytes = sizeof(wire::OffsetDataFields);
            must(said.command == Command::read, "data that nobody asked for");
            break;
        case Chunk::offset_hole:
            field_bytes = sizeof(wire::OffsetHoleFields);
            must(said.command == Command::read && chunk_left_ == field_bytes,
                 "a hole that nobody asked for");
            break;
        case Chunk::block_status:
        case Chunk::extended_block_status:
            must(said.command == Command::block_status &&
                     (chunk_type_ == Chunk::extended_block_status) == extended_,
                 "a status that nobody asked for");
            break;
        case Chunk::error:
            field_bytes = sizeof(wire::ErrorFields);
            must(done, "an error in the middle of an answer");
            break;
        default:
            throw std::runtime_error("a chunk of no known type");
    }
    must(chunk_left_ >= field_bytes, "a chunk that is too short");
    chunk_left_ -= field_bytes;
    if (field_bytes > 0) {
        expect(field_bytes, &Listener::chunk_fields);
    } else {
        expect_data(chunk_left_, {}, &Listener::chunk_ended);
    }
}

void Listener::chunk_fields() {
    const Said& said = *current_->said;
    if (chunk_type_ == Chunk::error) {
        chunk_error_ = static_cast<Error>(std::uint32_t{heard<wire::ErrorFields>().error});
        must(chunk_error_ != Error::none, "an error that is none");
        expect_data(chunk_left_, {}, &Listener::chunk_ended);
        return;
    }
    const bool hole = chunk_type_ == Chunk::offset_hole;
    const std::uint64_t offset = heard<wire::OffsetDataFields>().offset;
    const std::uint64_t length =
        hole ? std::uint64_t{heard<wire::OffsetHoleFields>().hole_bytes} : chunk_left_;
    must(length > 0 && offset >= said.offset &&
             Range::fits(offset - said.offset, length, said.length),
         "data outside of what was asked for");
    current_->data_bytes += length;
    if (!hole) {
        expect_data(length, offset, &Listener::chunk_ended);
        return;
    }
    constexpr std::array<std::byte, 65536> kZeroes{};
    for (std::uint64_t at = 0; reads_disk() && at < length; at += kZeroes.size()) {
        const auto part = std::span(kZeroes).first(std::min(length - at, kZeroes.size()));
        must(content_.may_be_read(offset + at, part), "a hole where there is data");
    }
    chunk_ended();
}

void Listener::chunk_ended() {
    if ((chunk_flags_ & wire::kChunkDone) != 0) {
        finish(chunk_error_);
    } else {
        next_reply();
    }
}

}  // namespace nbdm::fuzz
