// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "server/export.h"
#include "server/meta_contexts.h"
#include "server/nbd_wire.h"

namespace nbdm {

// Describes the extents of one context from the start of `range` (not empty) on; neighbours that
// are alike are one. Stops at the end of the range or when `into` (not empty) is full; one
// descriptor is always written, and none reaches past the range.
// `extents_fd` is from DiskFile::open_again, this thread's own.
template <typename Descriptor>  // wire::BlockDescriptor or wire::ExtendedBlockDescriptor
[[nodiscard]] std::size_t describe(const Export& served, int extents_fd, const MetaContext& context,
                                   Range range, std::span<Descriptor> into) noexcept;

}  // namespace nbdm
