// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>

#include "iothread/io_thread.h"
#include "iothread/unique_fd.h"

namespace nbdm {

// Every write passes this gate on its way to the disk and again on its way back. It can be shut
// for three reasons: the export is held (cutover), a write needs the disk for itself (an unaligned
// one on a direct export), or the disk has moved away for good.
//
// Invariant: once drained() has been true after hold(), no write is between enter() and leave()
// until release(). It rests on two sequentially consistent pairs (Dekker): a writer counts itself
// in and then looks at the gate; the holder shuts the gate and then looks at the counts.
//
// Threads: attach(), detach(), enter(), leave() by iothreads, each with its own lane; hold(),
//          release() and retire() by the main thread; drained() and the rest by any.
class WriteGate {
  public:
    // One connection's count of writes under way. Its address is stable until detach().
    struct alignas(64) Lane {
        std::atomic<std::uint32_t> in_flight{0};
        IoThread* thread = nullptr;  // woken when the gate opens
    };

    // `drained_fd` (an eventfd, not owned) is written when a lane empties during a hold.
    explicit WriteGate(int drained_fd) : drained_fd_(drained_fd) {}

    // A connection's lane, for as long as this lives.
    class Attachment {
      public:
        Attachment(WriteGate& gate, IoThread& thread) : gate_(gate), lane_(gate.attach(thread)) {}
        Attachment(const Attachment&) = delete;
        Attachment& operator=(const Attachment&) = delete;
        ~Attachment() { gate_.detach(lane_); }
        [[nodiscard]] Lane& lane() const noexcept { return lane_; }

      private:
        WriteGate& gate_;
        Lane& lane_;
    };

    [[nodiscard]] Lane& attach(IoThread& thread);
    void detach(Lane& lane) noexcept;

    enum class Entry { entered, shut, held, retired };
    // `shut` (for another write, which is over soon) and `held`: park the write and try again when
    // the thread is woken.
    [[nodiscard]] Entry enter(Lane& lane) noexcept;
    void leave(Lane& lane) noexcept;
    // A hold keeps a write waiting that has not come as far as enter(): it counts all the same.
    void note_kept_waiting() noexcept;

    // Enters alone: waits until no other lane has a write under way, and keeps others out until
    // leave_alone(). Blocks; the caller has no write of its own under way.
    [[nodiscard]] Entry enter_alone(Lane& lane) noexcept;
    void leave_alone(Lane& lane) noexcept;

    void hold() noexcept;
    [[nodiscard]] bool drained() const noexcept;
    // Opens the gate after a hold. Returns how long the first write that was kept waiting has
    // waited, in nanoseconds; 0 when none was.
    std::uint64_t release() noexcept;
    // The same, but from now on every write is refused: the disk has moved away.
    std::uint64_t retire() noexcept;
    [[nodiscard]] bool held() const noexcept {
        return (shut_.load(std::memory_order_acquire) & kHeld) != 0;
    }
    [[nodiscard]] bool retired() const noexcept {
        return (shut_.load(std::memory_order_acquire) & kRetired) != 0;
    }

  private:
    static constexpr std::uint32_t kHeld = 1;
    static constexpr std::uint32_t kAlone = 2;
    static constexpr std::uint32_t kRetired = 4;

    [[nodiscard]] Entry refuse(std::uint32_t shut) noexcept;
    void wake_all() noexcept;
    [[nodiscard]] bool is_empty_but_for(const Lane* lane) const noexcept;

    const int drained_fd_;
    std::atomic<std::uint32_t> shut_{0};             // reasons, by bit
    std::atomic<std::uint64_t> first_parked_ns_{0};  // steady clock; 0: none in this hold

    std::atomic<std::uint32_t> emptied_{0};  // grows when a lane empties while the gate is shut
    std::mutex alone_;                       // held from enter_alone to leave_alone: one at a time

    mutable std::mutex lanes_mutex_;  // guards lanes_
    std::list<Lane> lanes_;
};

}  // namespace nbdm
