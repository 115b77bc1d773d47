// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/disk_identity.h"
#include "iothread/disk_file.h"
#include "server/fence.h"
#include "server/landing.h"
#include "server/statistics.h"
#include "server/throttle.h"
#include "server/tracker.h"
#include "server/write_gate.h"

namespace nbdm {

// What the command line says of one export.
struct ExportOptions {
    std::string name;
    std::string path;
    std::string description;
    bool read_only = false;
    bool incoming = false;  // a mirror fills it before others use it
    CacheMode cache = CacheMode::automatic;
    std::optional<std::uint64_t> create_bytes;
};

// One served disk: the opened file, the gate that its writers pass, and the trackers that they
// mark. Outlives every connection to it.
//
// Threads: any; what changes is atomic or has its own lock.
class Export {
  public:
    // Throws std::system_error that names the path.
    Export(ExportOptions options, int drained_fd);

    [[nodiscard]] const ExportOptions& options() const noexcept { return options_; }
    [[nodiscard]] const std::string& name() const noexcept { return options_.name; }
    // "export 'NAME'", for people.
    [[nodiscard]] std::string quoted() const { return "export '" + name() + "'"; }
    [[nodiscard]] DiskFile& file() noexcept { return file_; }
    [[nodiscard]] const DiskFile& file() const noexcept { return file_; }
    [[nodiscard]] std::uint64_t size_bytes() const noexcept { return file_.size_bytes(); }
    // Throws std::system_error that names the path.
    [[nodiscard]] DiskIdentity identity() const {
        return DiskIdentity::of(file_.fd(), file_.path());
    }
    // As DiskIdentity's: by that a mirror knows again what it has filled.
    [[nodiscard]] std::uint32_t fingerprint() const noexcept { return fingerprint_; }
    enum class Resized { same, grown, smaller, tracked };
    // Looks whether the disk has grown; clients that come later see its new size. It is left alone
    // when it is smaller, since clients were promised more, and while it is tracked. The main
    // thread. Throws std::system_error.
    [[nodiscard]] Resized notice_growth();
    // Connections that are made now may only read: it was configured so, or the disk has moved.
    [[nodiscard]] bool read_only() const noexcept { return options_.read_only || gate_.retired(); }
    [[nodiscard]] WriteGate& gate() noexcept { return gate_; }
    [[nodiscard]] const WriteGate& gate() const noexcept { return gate_; }
    [[nodiscard]] TrackerSet& trackers() noexcept { return trackers_; }
    [[nodiscard]] const TrackerSet& trackers() const noexcept { return trackers_; }
    [[nodiscard]] Fence& fence() noexcept { return fence_; }
    [[nodiscard]] const Fence& fence() const noexcept { return fence_; }
    [[nodiscard]] Landing& landing() noexcept { return landing_; }
    [[nodiscard]] const Landing& landing() const noexcept { return landing_; }
    [[nodiscard]] Throttle& throttle() noexcept { return throttle_; }
    [[nodiscard]] const Throttle& throttle() const noexcept { return throttle_; }

    // A data sync (of a flush or a FUA write) failed. The kernel reports lost write-back once; here
    // the first error stays, so that every later flush on every connection fails too.
    void note_write_back_error(int error) noexcept;
    [[nodiscard]] int write_back_error() const noexcept {
        return write_back_error_.load(std::memory_order_acquire);
    }

    // Of connections that have ended. The main thread changes it.
    Statistics past;
    Statistics past_in_background;  // of these, which are not in the other

  private:
    // Of what is served for writing, but was hardly meant to be.
    void warn_of_mistakes() const;

    const ExportOptions options_;
    DiskFile file_;
    const std::uint32_t fingerprint_;
    WriteGate gate_;
    TrackerSet trackers_;
    Fence fence_;
    Landing landing_;
    Throttle throttle_;
    std::atomic<int> write_back_error_{0};
};

// The exports of a server, fixed once it serves.
class ExportTable {
  public:
    // Throws std::invalid_argument when the name is taken.
    Export& add(std::unique_ptr<Export> made);
    // Null when there is none.
    [[nodiscard]] Export* find(std::string_view name) const noexcept;
    [[nodiscard]] const std::vector<std::unique_ptr<Export>>& all() const noexcept {
        return exports_;
    }

  private:
    std::vector<std::unique_ptr<Export>> exports_;
};

}  // namespace nbdm
