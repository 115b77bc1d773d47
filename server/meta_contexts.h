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
    enum class Kind { allocation, dirtiness, allocated, room, incoming, session, commit };
    Kind kind = Kind::allocation;
    TrackerReference tracker;  // of dirtiness

    [[nodiscard]] bool is_of_mirror() const noexcept {
        return kind == Kind::session || kind == Kind::commit;
    }
};

// What a client asks for in NBD_OPT_LIST_META_CONTEXT or NBD_OPT_SET_META_CONTEXT.
enum class MetaQueryKind { list, set };

// The contexts of `served` that the queries name, each once, in the order of the queries. No
// query at all lists everything and sets nothing. "base:", "qemu:" and "nbd-mirror:" (with or
// without "dirty-bitmap:") list all of their kind. A mirror's session, and its commit at an
// incoming export, are never listed, and there when they are named; a connection has one of them.
[[nodiscard]] std::vector<MetaContext> match_meta_contexts(const Export& served,
                                                           const std::vector<std::string>& queries,
                                                           MetaQueryKind kind);

}  // namespace nbdm
