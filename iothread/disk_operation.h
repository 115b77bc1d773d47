// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "iothread/disk_file.h"
#include "iothread/range.h"
#include "iothread/ring.h"

namespace nbdm {

// How a range may be made to read as zero.
struct ZeroMode {
    bool may_punch = true;   // deallocating is allowed
    bool fast_only = false;  // fail with ENOTSUP rather than write zeroes
};

// One request on a DiskFile, from start to a single errno. Continues short transfers, falls back
// along the zeroing chain, adds the data sync that FUA asks for.
//
// A buffered transfer is done at once by a plain system call where that is cheaper than the ring
// (docs/performance.md); then finished() is called before the starting call returns. Callers that
// start new work from finished() must therefore queue it instead. A buffered write has taken its
// data when write() returns, also when the sync that FUA asks for is still to come.
//
// Threads: the ring's. One request at a time per object; the memory stays valid until finished().
class DiskOperation : public Operation {
  public:
    // `range` is inside the file, not empty, and a multiple of request_alignment(). `ring_index`:
    // the memory's in the ring, if it is registered there.
    void read(Ring& ring, DiskFile& file, Range range, std::byte* into,
              int ring_index = Ring::kNotRegistered);
    // `fua`: the data is durable before finished().
    void write(Ring& ring, DiskFile& file, Range range, const std::byte* from, bool fua,
               int ring_index = Ring::kNotRegistered);
    // Any alignment; but EINVAL for what is not aligned on a direct() file of a file system that
    // can neither punch nor zero.
    void zero(Ring& ring, DiskFile& file, Range range, ZeroMode mode, bool fua);
    // Advice: success when nothing could be released.
    void trim(Ring& ring, DiskFile& file, Range range, bool fua);
    // All completed writes are durable afterwards.
    void flush(Ring& ring, DiskFile& file);

    // Instead of the file's own descriptor others of it are used. `sync_fd` is from
    // DiskFile::open_again(), since the kernel tells each opening of a lost write-back once; that
    // is good for `fd` too, since threads that share an opening wait for each other's count of its
    // users.
    void go_through(int fd, int sync_fd) noexcept {
        fd_ = fd;
        sync_fd_ = sync_fd;
    }
    // Of a request that failed: the data sync did, so that data of this and other, answered writes
    // may be lost.
    [[nodiscard]] bool was_syncing() const noexcept { return step_ == Step::sync; }

  protected:
    ~DiskOperation() = default;

  private:
    enum class Step {
        read,
        write,
        punch,
        punch_to_allocate,
        allocate,
        zero_range,
        write_zeroes,
        trim,
        sync
    };

    // 0 or a positive errno.
    virtual void finished(int error) noexcept = 0;
    void completed(int result) noexcept final;

    void begin(Ring& ring, DiskFile& file, Range range, bool fua) noexcept;
    [[nodiscard]] int fd() const noexcept { return fd_ >= 0 ? fd_ : file_->fd(); }
    void submit(Step step);
    [[nodiscard]] int write_zeroes_now(Range range) const noexcept;
    [[nodiscard]] Step first_zero_step() const noexcept;
    void transferred(std::uint64_t bytes) noexcept;
    void transfer_rest();
    void transfer_completed(int result);
    void zero_completed(int result);
    void changed();

    Ring* ring_ = nullptr;
    DiskFile* file_ = nullptr;
    int fd_ = -1;
    int sync_fd_ = -1;
    int ring_index_ = Ring::kNotRegistered;
    Range left_;  // what is still to be transferred
    std::byte* into_ = nullptr;
    const std::byte* from_ = nullptr;
    ZeroMode mode_;
    Step step_ = Step::read;
    bool fua_ = false;
};

}  // namespace nbdm
