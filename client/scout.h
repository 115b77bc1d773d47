// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/cancellation.h"
#include "client/nbd_handle.h"
#include "iothread/disk_file.h"
#include "iothread/range.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// Whether a stretch of a disk reads as zero, as far as it was asked; what is unknown counts as
// data.
enum class Allocation { data, zero, unknown };

// What is known of a stretch of a disk without reading it.
struct Extent {
    Range range;
    Allocation allocation = Allocation::data;
    bool dirty = true;   // in the frozen map of the tracker that was asked for, if one was
    bool alike = false;  // source and target were compared, and have the same there

    [[nodiscard]] bool zero() const noexcept { return allocation == Allocation::zero; }
};

// Looks ahead for the extents of one end of a copy: in large ranges, on a connection or descriptor
// of its own, so that it waits for no data.
//
// Threads: one at a time.
class Scout {
  public:
    Scout() = default;
    Scout(const Scout&) = delete;
    Scout& operator=(const Scout&) = delete;
    virtual ~Scout() = default;

    // Extents from the start of `within` (not empty) on, at least one, none past its end; they may
    // stop short of it. Throws JobError or Cancelled.
    [[nodiscard]] virtual std::vector<Extent> extents(Range within) = 0;
    // Throws ConnectionLost when the connection that it asks over is gone. Sends nothing.
    virtual void check_connected() const {}
};

class NbdScout final : public Scout {
  public:
    // Tells what reads as zero or, with `tracker` not empty, what is dirty in its frozen map;
    // throws JobError when the server does not have that. `session`: a metadata context to be
    // selected besides; may be empty.
    NbdScout(const std::string& uri, const std::string& tracker, const std::string& session,
             const Cancellation& cancellation);

    [[nodiscard]] std::vector<Extent> extents(Range within) override;
    void check_connected() const override;

  private:
    const Cancellation& cancellation_;
    const std::string context_;
    const bool tells_dirtiness_;
    NbdHandle handle_;
    const bool is_told_;  // or the server does not know the context
};

// The extents of `all`, asked for over a connection that is not used for anything else meanwhile;
// neighbours that are alike are merged. Throws JobError or Cancelled.
[[nodiscard]] std::vector<Extent> all_extents(NbdHandle& handle, Range all,
                                              const Cancellation& cancellation);

// Of some metadata contexts, whose status is a number: the one at the disk's start; of those that
// the connection has. Throws JobError or Cancelled.
[[nodiscard]] std::map<std::string, std::uint32_t> ask_numbers(
    NbdHandle& handle, const std::vector<std::string>& contexts, const Cancellation& cancellation);

// Says again what was learned before.
class KnownScout final : public Scout {
  public:
    // Ascending, without gaps, from offset 0 on.
    explicit KnownScout(std::vector<Extent> extents) : extents_(std::move(extents)) {}

    [[nodiscard]] std::vector<Extent> extents(Range within) override;

  private:
    const std::vector<Extent> extents_;
};

// The extents of a disk of which these parts are dirty, and nothing else is; they are given by
// their offsets, and may overlap. What reads as zero is not known.
[[nodiscard]] std::vector<Extent> dirty_extents(const std::vector<Range>& parts,
                                                std::uint64_t size_bytes);

class FileScout final : public Scout {
  public:
    explicit FileScout(const DiskFile& file)
        : file_(file), fd_(file.open_again()), may_have_holes_(file.state().may_have_holes) {}

    [[nodiscard]] std::vector<Extent> extents(Range within) override;

  private:
    const DiskFile& file_;
    const UniqueFd fd_;
    const bool may_have_holes_;  // when the sweep began; a later hole is read as zeroes
};

}  // namespace nbdm
