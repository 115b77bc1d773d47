// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace nbdm {

// What the targets of a mirror know its connections by: metadata contexts
// nbd-mirror:session:ID:EPOCH. What earlier connections of a session have sent to an
// nbd-mirror-server does not land any more once those of a later epoch stand; connections of
// another session are another mirror's.
//
// Threads: one at a time.
class Session {
  public:
    // A new one: its id is that of no other mirror, whatever their jobs are called.
    explicit Session(const std::string& job);
    // One that another process has begun; later than `epoch`.
    Session(std::string id, std::uint64_t epoch) noexcept : id_(std::move(id)), epoch_(epoch) {}

    // Of connections that are made from now on.
    [[nodiscard]] std::string next_context();
    // The one by which a target is told that the source has handed over.
    [[nodiscard]] std::string next_commit_context();
    // As that, of an epoch that has passed: only a target that has landed already answers it.
    [[nodiscard]] std::string past_commit_context() const;

    [[nodiscard]] const std::string& id() const noexcept { return id_; }
    // The last one that was used.
    [[nodiscard]] std::uint64_t epoch() const noexcept { return epoch_; }

  private:
    std::uint64_t next_epoch() noexcept;

    std::string id_;
    std::uint64_t epoch_ = 0;
    bool begun_ = false;  // by this process
};

}  // namespace nbdm
