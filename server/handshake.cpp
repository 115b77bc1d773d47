// SPDX-License-Identifier: Apache-2.0
#include "server/handshake.h"

#include <algorithm>
#include <array>
#include <utility>

#include "control/log.h"
#include "server/option_cursor.h"

namespace nbdm {

using wire::Big32;
using wire::Option;
using wire::OptionReply;

namespace {

// The longest option that is read: any export name with thousands of meta context queries. A
// longer one is skipped and refused, up to a length that no client has a reason to send.
constexpr std::uint32_t kMaxOptionBytes = 64 << 10;
constexpr std::uint32_t kMaxSkippedOptionBytes = 4 << 20;
// A client that has not agreed on anything after this many options is not trying to.
constexpr int kMaxOptions = 1024;

constexpr std::string_view kMalformed =
    "the option's lengths do not add up, or a string in it is no string of the protocol";

std::span<const std::byte> bytes_of_text(std::string_view text) noexcept {
    return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

std::optional<Session> Handshake::run() {
    if (greet() == Next::disconnect) {
        return std::nullopt;
    }
    for (int options = 0; options < kMaxOptions; ++options) {
        switch (one_option()) {
            case Next::option:
                break;
            case Next::transmission:
                return std::move(session_);
            case Next::disconnect:
                return std::nullopt;
        }
    }
    reason_ = DisconnectReason::protocol_error;
    return std::nullopt;
}

Handshake::Next Handshake::greet() {
    Big32 client_flags;
    if (!stream_.write(wire::bytes_of(wire::Greeting{})) ||
        !stream_.read(wire::writable_bytes_of(client_flags))) {
        return end(stream_.reason());
    }
    const std::uint32_t flags = client_flags;
    constexpr std::uint32_t kKnown = wire::kFixedNewstyle | wire::kNoZeroes;
    if ((flags & ~kKnown) != 0) {
        return end(DisconnectReason::protocol_error);
    }
    no_zeroes_ = (flags & wire::kNoZeroes) != 0;
    return Next::option;
}

Handshake::Next Handshake::one_option() {
    wire::OptionHeader header;
    if (!stream_.read(wire::writable_bytes_of(header))) {
        return end(stream_.reason());
    }
    option_ = static_cast<Option>(std::uint32_t{header.option});
    const std::uint32_t length = header.length;
    if (header.magic != wire::kOptionMagic || length > kMaxSkippedOptionBytes) {
        return end(DisconnectReason::protocol_error);
    }
    if (length > kMaxOptionBytes) {
        if (!stream_.skip(length)) {
            return end(stream_.reason());
        }
        return refuse_too_long();
    }
    std::vector<std::byte> data(length);
    if (!stream_.read(data)) {
        return end(stream_.reason());
    }
    return handle(option_, data);
}

// It was taken off the stream.
Handshake::Next Handshake::refuse_too_long() {
    switch (option_) {
        case Option::export_name:
            return end(DisconnectReason::protocol_error);
        case Option::set_meta_context:
            select(nullptr, {});
            break;
        case Option::abort:
        case Option::list:
        case Option::info:
        case Option::go:
        case Option::structured_reply:
        case Option::extended_headers:
        case Option::list_meta_context:
            break;
        default:
            return handle(option_, {});
    }
    return refuse(OptionReply::error_too_big, "the option is too long");
}

Handshake::Next Handshake::handle(Option option, Data data) {
    switch (option) {
        case Option::export_name:
            return export_name(data);
        case Option::abort:
            return abort();
        case Option::list:
            return list(data);
        case Option::info:
        case Option::go:
            return info_or_go(data);
        case Option::structured_reply:
            return reply_style(data, ReplyStyle::structured);
        case Option::extended_headers:
            return reply_style(data, ReplyStyle::extended);
        case Option::list_meta_context:
        case Option::set_meta_context:
            return meta_context(data);
        case Option::starttls:
            return refuse(OptionReply::error_unsupported, "TLS is not available here");
    }
    return refuse(OptionReply::error_unsupported, "the option is not known");
}

Handshake::Next Handshake::export_name(Data data) {
    const std::string name = OptionCursor(data).string(data.size());
    Export* served = exports_.find(name);
    // This option has no way to say no.
    if (!refusal_.empty()) {
        return end(DisconnectReason::shut_out);
    }
    if (session_.replies == ReplyStyle::extended) {
        return end(DisconnectReason::protocol_error);
    }
    if (served == nullptr) {
        unknown_export_ = name;
        return end(DisconnectReason::unknown_export);
    }
    if (wait_for_landing(*served) == Next::disconnect) {
        return Next::disconnect;
    }
    session_.size_bytes = served->size_bytes();
    const std::uint16_t flags = transmission_flags(*served);
    enter(*served, flags);
    const wire::ExportNameReply answer{.size_bytes = session_.size_bytes, .flags = flags};
    constexpr std::array<std::byte, wire::kExportNamePaddingBytes> kPadding{};
    if (!stream_.write(wire::bytes_of(answer)) || (!no_zeroes_ && !stream_.write(kPadding))) {
        return end(stream_.reason());
    }
    return Next::transmission;
}

Handshake::Next Handshake::abort() {
    // The client need not wait for the answer.
    [[maybe_unused]] const Next answered = reply(OptionReply::ack);
    return end(DisconnectReason::client_left);
}

Handshake::Next Handshake::list(Data data) {
    if (!data.empty()) {
        return refuse(OptionReply::error_invalid, "NBD_OPT_LIST carries no data");
    }
    for (const auto& served : exports_.all()) {
        // Behind the name, a text for people.
        const std::string text = served->name() + served->options().description;
        const Big32 length = static_cast<std::uint32_t>(served->name().size());
        std::vector<std::byte> entry(sizeof(length) + text.size());
        std::memcpy(entry.data(), &length, sizeof(length));
        std::memcpy(entry.data() + sizeof(length), text.data(), text.size());
        if (reply(OptionReply::server, entry) == Next::disconnect) {
            return Next::disconnect;
        }
    }
    return reply(OptionReply::ack);
}

Handshake::Next Handshake::info_or_go(Data data) {
    OptionCursor cursor(data);
    const std::string name = cursor.string(cursor.number<std::uint32_t>());
    const std::uint16_t count = cursor.number<std::uint16_t>();
    // What is asked for twice is told once, and what is not known not at all.
    InfoTypes wanted;
    for (unsigned i = 0; i < count && !cursor.malformed(); ++i) {
        if (const auto type = cursor.number<std::uint16_t>(); type < wanted.size()) {
            wanted.set(type);
        }
    }
    if (!cursor.complete()) {
        return refuse(OptionReply::error_invalid, kMalformed);
    }
    Export* served = exports_.find(name);
    if (served == nullptr) {
        return refuse_unknown(name);
    }
    // A client that was refused a context may go on all the same; this one must not write.
    if (!refusal_.empty()) {
        return refuse(OptionReply::error_policy, refusal_);
    }
    if (option_ == Option::go && wait_for_landing(*served) == Next::disconnect) {
        return Next::disconnect;
    }
    session_.size_bytes = served->size_bytes();
    const std::uint16_t flags = transmission_flags(*served);
    const wire::InfoExport told{.size_bytes = session_.size_bytes, .flags = flags};
    for (const auto& info : info_replies(*served, told, wanted)) {
        if (reply(OptionReply::info, info) == Next::disconnect) {
            return Next::disconnect;
        }
    }
    if (reply(OptionReply::ack) == Next::disconnect) {
        return Next::disconnect;
    }
    if (option_ == Option::info) {
        return Next::option;
    }
    enter(*served, flags);
    return Next::transmission;
}

std::uint16_t Handshake::transmission_flags(const Export& served) const noexcept {
    return nbdm::transmission_flags(served, session_.replies,
                                    contexts_for_ == &served && !session_.contexts.empty());
}

Handshake::Next Handshake::reply_style(Data data, ReplyStyle style) {
    if (!data.empty()) {
        return refuse(OptionReply::error_invalid, "this option carries no data");
    }
    if (style < session_.replies) {
        return refuse(OptionReply::error_extended_headers_required,
                      "extended headers were negotiated already");
    }
    session_.replies = style;
    return reply(OptionReply::ack);
}

Handshake::Next Handshake::meta_context(Data data) {
    const bool set = option_ == Option::set_meta_context;
    if (set) {
        // A new selection replaces the old one, also when it is refused.
        select(nullptr, {});
    }
    OptionCursor cursor(data);
    const std::string name = cursor.string(cursor.number<std::uint32_t>());
    const std::uint32_t count = cursor.number<std::uint32_t>();
    std::vector<std::string> queries;
    for (std::uint32_t i = 0; i < count && !cursor.malformed(); ++i) {
        queries.push_back(cursor.string(cursor.number<std::uint32_t>()));
    }
    if (!cursor.complete()) {
        return refuse(OptionReply::error_invalid, kMalformed);
    }
    if (session_.replies == ReplyStyle::simple) {
        return refuse(OptionReply::error_invalid,
                      "neither structured replies nor extended headers were negotiated");
    }
    Export* served = exports_.find(name);
    if (served == nullptr) {
        return refuse_unknown(name);
    }
    const auto contexts =
        match_meta_contexts(*served, queries, set ? MetaQueryKind::set : MetaQueryKind::list);
    if (set) {
        // Before the client is answered: whoever it tells of its selection can see it counted.
        select(served, contexts);
        refusal_ = enter_session(*served);
        if (!refusal_.empty()) {
            log_warning(served->quoted() +
                        ": a mirror's connection is refused: " + std::string(refusal_));
            return refuse(OptionReply::error_policy, refusal_);
        }
    }
    for (const MetaContext& context : contexts) {
        std::vector<std::byte> entry(sizeof(Big32) + context.name.size());
        const Big32 id = context.id;
        std::memcpy(entry.data(), &id, sizeof(id));
        std::memcpy(entry.data() + sizeof(id), context.name.data(), context.name.size());
        if (reply(OptionReply::meta_context, entry) == Next::disconnect) {
            return Next::disconnect;
        }
    }
    return reply(OptionReply::ack);
}

void Handshake::select(const Export* served, std::vector<MetaContext> contexts) {
    contexts_for_ = served;
    session_.contexts = std::move(contexts);
    session_.readers.clear();
    session_.membership.leave();
    for (const MetaContext& context : session_.contexts) {
        if (context.kind == MetaContext::Kind::dirtiness) {
            session_.readers.emplace_back(context.tracker);
        }
    }
}

std::string_view Handshake::enter_session(Export& served) {
    const auto session = std::ranges::find_if(session_.contexts, &MetaContext::is_of_mirror);
    if (session == session_.contexts.end()) {
        return "";
    }
    const bool commits = session->kind == MetaContext::Kind::commit;
    const SessionName name =
        *SessionName::parse(session->name, commits ? SessionName::kCommit : SessionName::kSession);
    Fence::Others others = Fence::Others::allowed;
    if (served.landing().expected()) {
        others = commits ? Fence::Others::refused : Fence::Others::awaited;
    }
    const auto enter = [&] {
        return Fence::why_not(served.fence().enter(name, others, stream_.thread(),
                                                   stream_.deadline(), session_.membership));
    };
    if (commits) {
        return served.landing().commit(name.id, enter);
    }
    const std::string_view refusal = enter();
    if (refusal.empty() && !served.landing().may_enter()) {
        session_.membership.leave();
        return "the disk has landed here, and belongs to its guest";
    }
    return refusal;
}

Handshake::Next Handshake::wait_for_landing(Export& served) {
    if (!served.landing().expected() ||
        (contexts_for_ == &served && session_.membership.stands())) {
        return Next::option;
    }
    const Landing::Waiting waiting(served.landing(), stream_.thread());
    if (!waiting.admitted()) {
        return end(DisconnectReason::too_many_wait);
    }
    log_info(served.quoted() + ": a client waits until the disk has landed");
    const bool landed = stream_.wait_until([&] { return !served.landing().expected(); });
    return landed ? Next::option : end(stream_.reason());
}

Handshake::Next Handshake::reply(OptionReply type, Data data) {
    const wire::OptionReplyHeader header{.option = static_cast<std::uint32_t>(option_),
                                         .type = static_cast<std::uint32_t>(type),
                                         .length = static_cast<std::uint32_t>(data.size())};
    if (!stream_.write(wire::bytes_of(header)) || !stream_.write(data)) {
        return end(stream_.reason());
    }
    return Next::option;
}

Handshake::Next Handshake::refuse(OptionReply type, std::string_view why) {
    return reply(type, bytes_of_text(why));
}

Handshake::Next Handshake::refuse_unknown(const std::string& name) {
    unknown_export_ = name;
    return refuse(OptionReply::error_unknown, "there is no export of this name");
}

void Handshake::enter(Export& served, std::uint16_t flags) {
    session_.served = &served;
    // As the client was told: of a disk that is handed over since, writes end otherwise.
    session_.read_only = (flags & wire::kReadOnly) != 0;
    if (contexts_for_ != &served) {
        select(nullptr, {});
    }
}

Handshake::Next Handshake::end(DisconnectReason reason) noexcept {
    reason_ = reason;
    return Next::disconnect;
}

}  // namespace nbdm
