// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/export.h"
#include "server/nbd_wire.h"
#include "server/request.h"

namespace nbdm {

// What a client is told of an export before it uses it.
//
// Threads: any.

// `selected`: the client has selected metadata contexts of it.
[[nodiscard]] std::uint16_t transmission_flags(const Export& served, ReplyStyle replies,
                                               bool selected) noexcept;

// Of NBD_OPT_INFO and NBD_OPT_GO; those that are not known are not in it.
using InfoTypes = std::bitset<wire::kInfoTypes>;

// The contents of each NBD_REP_INFO to be sent: NBD_INFO_EXPORT as given, and what is wanted
// besides, each once.
[[nodiscard]] std::vector<std::vector<std::byte>> info_replies(const Export& served,
                                                               const wire::InfoExport& told,
                                                               InfoTypes wanted);

}  // namespace nbdm
