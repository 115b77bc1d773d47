// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace nbdm {

// The largest payload of one request that is advertised (the specification's default).
constexpr std::uint32_t kMaxPayloadBytes = std::uint32_t{32} << 20;
// The largest that is accepted, since real clients send it.
constexpr std::uint32_t kMaxAcceptedPayloadBytes = std::uint32_t{64} << 20;
// A longer payload is not waited for: its client is disconnected.
constexpr std::uint64_t kMaxSkippedPayloadBytes = UINT32_MAX;
// Requests of one connection under way at a time; the next ones wait in the socket.
constexpr std::size_t kMaxRequests = 128;
// Memory of one connection for the data of its requests: two of the largest that are accepted, and
// room for small ones beside them.
constexpr std::size_t kMaxBufferBytes = std::size_t{144} << 20;

}  // namespace nbdm
