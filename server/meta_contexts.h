// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/export.h"

namespace nbdm {

// A metadata context that a client selected: what NBD_CMD_BLOCK_STATUS answers.
struct MetaContext {
    std::uint32_t id = 0;  // of this connection; 0 when it is only listed
    std::string name;
    enum class Kind {
        allocation,
        dirtiness,
        allocated,
        room,
        incoming,
        session,
        commit,
        background
    };
    Kind kind = Kind::allocation;
    TrackerReference tracker;  // of dirtiness

    [[nodiscard]] bool is_of_mirror() const noexcept {
        return kind == Kind::session || kind == Kind::commit;
    }
    [[nodiscard]] bool is_background() const noexcept {
        return kind == Kind::background || is_of_mirror();
    }
};

// What a client asks for in NBD_OPT_LIST_META_CONTEXT or NBD_OPT_SET_META_CONTEXT.
enum class MetaQueryKind { list, set };

// The contexts of `served` that the queries name, each once, in the order of the queries. No
// query at all lists everything and sets nothing. "base:", "qemu:" and "nbd-mirror:" (with or
// without "dirty-bitmap:") list all of their kind. A mirror's session, its commit at an incoming
// export, and what says that a client is one in the background are never listed, and there when
// they are named; of the first two a connection has one.
[[nodiscard]] std::vector<MetaContext> match_meta_contexts(const Export& served,
                                                           const std::vector<std::string>& queries,
                                                           MetaQueryKind kind);

}  // namespace nbdm
