// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "control/disk_identity.h"
#include "control/durable_file.h"
#include "server/export.h"

namespace nbdm {

// What is known of a disk that has moved away.
struct MoveRecord {
    DiskIdentity disk;
    std::string export_name;
    std::string moved_to;  // a URI, as the mirror gave it; may be empty
    std::string job;
    std::string moved_at;  // UTC, ISO 8601
};

// "export 'vm1' ('PATH') has moved away, to URI, at TIME (job 'vm1')".
[[nodiscard]] std::string moved_sentence(const Export& served, const MoveRecord& moved);

// What is known of a disk that a mirror has brought here.
struct ArrivalRecord {
    std::string job;
    std::string arrived_at;  // UTC, ISO 8601
    std::string path;        // of the record
};

// Who owns a disk, recorded durably: one small JSON file for each hand-over, of one disk or of
// several together. A disk is found in them by its identity, so that another export name or path
// does not lead around it.
//
// A disk that was brought here is recorded likewise, until it moves away again.
//
// Threads: any, of any number of processes; a call lasts as long as the storage of the records
// takes. Fails: std::system_error or std::runtime_error that names the file.
class OwnershipRecords {
  public:
    explicit OwnershipRecords(const std::string& state_dir)
        : state_directory_(state_dir),
          directory_(state_dir + "/moved"),
          arrivals_(state_dir + "/arrived") {}

    // What records a server that was killed has left, and what it has removed, stays so from now
    // on. Before anything else is believed that is found in them.
    void settle() const;

    // Makes the directory of moves for good, and removes what servers that were killed have left of
    // records that never took effect. Throws when no move could be recorded. The first move does
    // what was not done by then.
    void prepare_for_moves() const;
    // Makes the directory of arrivals for good; throws when none could be recorded.
    void prepare_for_arrivals() const;
    struct Move {
        const Export& moved;
        std::string moved_to;
    };
    // A hand-over that takes effect with commit(), and not at all without.
    class PreparedMoves {
      public:
        // Durable when it returns, with what is recorded of each disk, in their order; when it
        // throws, none of them has moved, for good. Where the storage allows neither, it tries
        // until it does, or is told to stop.
        [[nodiscard]] std::vector<MoveRecord> commit(const std::stop_token& stop);

      private:
        friend class OwnershipRecords;
        void undo(const std::stop_token& stop);
        std::unique_ptr<DurableFile> record_;
        std::vector<MoveRecord> moves_;
        std::vector<std::string> arrivals_;  // files that are out of date with it
    };
    // All that may fail, or take space, but for the last step. The exports outlive it.
    [[nodiscard]] PreparedMoves prepare_moves(const std::vector<Move>& moves,
                                              const std::string& job) const;
    // What is recorded of this disk, if anything. A record that cannot be read is no answer:
    // throws.
    [[nodiscard]] std::optional<MoveRecord> find(const DiskFile& file) const;
    // The disk is served here again: what is recorded of it no longer counts.
    void take_back(const DiskFile& file) const;

    // A mirror's job has brought the disk here, to which it may have been before.
    void record_arrival(const Export& arrived, const std::string& job) const;
    [[nodiscard]] std::optional<ArrivalRecord> find_arrival(const DiskFile& file) const;
    // It was made just now: what is recorded is of an earlier disk at its place, whose file system
    // tells no birth times.
    void forget_arrival(const DiskFile& file) const;

  private:
    struct Stored {
        std::string path;
        std::size_t index = 0;  // of the disk in it
        MoveRecord record;
    };
    [[nodiscard]] std::vector<Stored> records_of(const DiskFile& file) const;
    [[nodiscard]] std::vector<ArrivalRecord> arrivals_of(const DiskIdentity& disk) const;

    void prepare(const std::string& directory) const;
    void make_for_good(const std::string& directory) const;

    const std::string state_directory_;
    const std::string directory_;
    const std::string arrivals_;
    mutable std::atomic<bool> prepared_{false};  // directory_ is there for good
};

}  // namespace nbdm
