// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/cancellation.h"
#include "client/nbd_handle.h"
#include "iothread/block_digests.h"
#include "iothread/buffer_pool.h"
#include "iothread/disk_file.h"
#include "iothread/range.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// The digests of one side's blocks, made where its data is.
//
// Threads: one at a time.
class DigestSource {
  public:
    DigestSource() = default;
    DigestSource(const DigestSource&) = delete;
    DigestSource& operator=(const DigestSource&) = delete;
    virtual ~DigestSource() = default;

    // From the start of `range` (not empty) on, at least one, ascending and without gaps; they may
    // stop short of its end. Throws JobError, ConnectionLost or Cancelled.
    [[nodiscard]] virtual std::vector<DigestRun> digests(Range range) = 0;
};

class FileDigests final : public DigestSource {
  public:
    // `file` outlives it.
    FileDigests(const DiskFile& file, std::uint64_t seed);

    [[nodiscard]] std::vector<DigestRun> digests(Range range) override;

  private:
    const DiskFile& file_;
    const UniqueFd fd_;
    BlockDigests digests_;
    BufferPool pool_{std::size_t{1} << 20};
    Buffer memory_;
};

// An nbd-mirror-server makes them, and tells them as metadata contexts.
class NbdDigests final : public DigestSource {
  public:
    // Null when the server makes none. `context`: a metadata context to be selected besides; may be
    // empty. Throws as NbdHandle does. `cancellation` outlives it.
    [[nodiscard]] static std::unique_ptr<NbdDigests> connect(const std::string& uri,
                                                             const std::string& context,
                                                             std::uint64_t seed,
                                                             const Cancellation& cancellation);

    [[nodiscard]] std::vector<DigestRun> digests(Range range) override;

  private:
    using Contexts = std::array<std::string, std::tuple_size_v<Digest>>;
    NbdDigests(const std::string& uri, const std::string& context, const Contexts& parts,
               const Cancellation& cancellation);
    [[nodiscard]] bool has_all() const;

    const Contexts parts_;
    const Cancellation& cancellation_;
    NbdHandle handle_;
};

}  // namespace nbdm
