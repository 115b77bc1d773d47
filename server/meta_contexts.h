// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/export.h"

namespace nbdm {

// Which 32 bits of a block's digest (iothread/block_digests.h), and of which seed: metadata context
// nbd-mirror:digest:SEED:PART, with a seed of 16 hexadecimal digits and a part from 0 to 3.
struct DigestPart {
    std::uint64_t seed = 0;
    std::size_t part = 0;

    // Nothing when it is no such context's name.
    [[nodiscard]] static std::optional<DigestPart> parse(std::string_view context);
};

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
        background,
        disk,
        fillers,
        mirrors,
        digest
    };
    Kind kind = Kind::allocation;
    TrackerReference tracker = {};  // of dirtiness
    DigestPart digest = {};

    [[nodiscard]] bool is_digest() const noexcept { return kind == Kind::digest; }
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
// export, what says that a client is one in the background, and digests are never listed, and there
// when they are named; of the first two a connection has one, of digests those of one seed.
[[nodiscard]] std::vector<MetaContext> match_meta_contexts(const Export& served,
                                                           const std::vector<std::string>& queries,
                                                           MetaQueryKind kind);

}  // namespace nbdm
