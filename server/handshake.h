// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/export.h"
#include "server/export_info.h"
#include "server/meta_contexts.h"
#include "server/nbd_wire.h"
#include "server/request.h"
#include "server/socket_stream.h"

namespace nbdm {

// What the negotiation agreed on.
struct Session {
    Export* served = nullptr;
    std::uint64_t size_bytes = 0;  // as the client was told; the disk may have grown since
    bool read_only = false;
    ReplyStyle replies = ReplyStyle::simple;
    std::vector<MetaContext> contexts;
    std::vector<TrackerReader> readers;  // one for each tracker among the contexts
    Fence::Membership membership;        // when a mirror's session is among them

    // Nobody waits for what the client asks.
    [[nodiscard]] bool is_background() const noexcept {
        return std::any_of(contexts.begin(), contexts.end(),
                           [](const MetaContext& each) { return each.is_background(); });
    }
};

// The fixed newstyle negotiation of one client: a loop that reads one option, and one handler for
// each option that is known. A declared length is consumed exactly, whatever is in it.
//
// Threads: the connection's iothread.
class Handshake {
  public:
    Handshake(SocketStream& stream, const ExportTable& exports) noexcept
        : stream_(stream), exports_(exports) {}

    // Nothing: the connection is over, for reason().
    [[nodiscard]] std::optional<Session> run();
    [[nodiscard]] DisconnectReason reason() const noexcept { return reason_; }
    // What was asked for last and is not served; nothing when all that was asked for is.
    [[nodiscard]] const std::optional<std::string>& unknown_export() const noexcept {
        return unknown_export_;
    }

  private:
    enum class Next { option, transmission, disconnect };
    using Data = std::span<const std::byte>;

    [[nodiscard]] Next greet();
    [[nodiscard]] Next one_option();
    [[nodiscard]] Next handle(wire::Option option, Data data);
    [[nodiscard]] Next refuse_too_long();
    [[nodiscard]] Next export_name(Data data);
    [[nodiscard]] Next abort();
    [[nodiscard]] Next list(Data data);
    [[nodiscard]] Next info_or_go(Data data);
    [[nodiscard]] Next reply_style(Data data, ReplyStyle style);
    [[nodiscard]] Next meta_context(Data data);

    [[nodiscard]] Next reply(wire::OptionReply type, Data data = {});
    [[nodiscard]] Next refuse(wire::OptionReply type, std::string_view why);
    [[nodiscard]] Next refuse_unknown(const std::string& name);
    [[nodiscard]] std::uint16_t transmission_flags(const Export& served) const noexcept;
    // Until an incoming export has landed, unless the client is the mirror that fills it.
    [[nodiscard]] Next wait_for_landing(Export& served);
    void enter(Export& served, std::uint16_t flags);
    void select(const Export* served, std::vector<MetaContext> contexts);
    // Why the session that was asked for cannot be entered; empty when it was.
    [[nodiscard]] std::string_view enter_session(Export& served);
    [[nodiscard]] Next end(DisconnectReason reason) noexcept;

    SocketStream& stream_;
    const ExportTable& exports_;
    Session session_;
    const Export* contexts_for_ = nullptr;  // the export session_.contexts belong to
    std::string_view refusal_;              // why this client will not be served; empty: it will
    std::optional<std::string> unknown_export_;
    bool no_zeroes_ = false;
    wire::Option option_{};  // the one being answered
    DisconnectReason reason_ = DisconnectReason::connection_lost;
};

}  // namespace nbdm
