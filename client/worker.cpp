// SPDX-License-Identifier: Apache-2.0
#include "client/worker.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "iothread/check.h"
#include "iothread/time_slice.h"
#include "iothread/zero_scan.h"

namespace nbdm {

namespace {

constexpr unsigned kRingEntries = 128;
// What file systems and guests allocate at least: data is looked at for zeroes, and compared, in
// blocks of this.
constexpr std::size_t kBlockBytes = 4096;
// A shorter run of zeroes inside data costs more as a request of its own than as bytes.
constexpr std::size_t kMinZeroRunBytes = 16 << 10;
constexpr std::uint64_t kMinPoolBytes = BufferPool::kMinBytes;

bool reads_both(Piece::Kind kind) noexcept {
    return kind == Piece::Kind::compare || kind == Piece::Kind::update;
}

bool reads(Piece::Kind kind) noexcept {
    return kind == Piece::Kind::copy || reads_both(kind);
}

// The map shows what is to be done to the target, as the pass has found it.
bool is_on_map(Piece::Kind kind) noexcept {
    return kind == Piece::Kind::copy || kind == Piece::Kind::update || kind == Piece::Kind::zero;
}

}  // namespace

std::vector<ZeroRun> split_zeroes(std::span<const std::byte> data, std::uint64_t offset,
                                  ZeroGrain grain) {
    std::vector<ZeroRun> runs;
    for (std::size_t at = 0; at < data.size(); at += grain.block_bytes) {
        const auto block = data.subspan(at, std::min(grain.block_bytes, data.size() - at));
        const bool zero = is_all_zero(block);
        if (!runs.empty() && runs.back().zero == zero) {
            runs.back().range.length += block.size();
        } else {
            runs.push_back({{offset + at, block.size()}, zero});
        }
    }
    if (runs.size() < 2) {
        return runs;
    }
    std::vector<ZeroRun> merged;
    for (ZeroRun run : runs) {
        run.zero = run.zero && run.range.length >= grain.min_run_bytes;
        if (!merged.empty() && merged.back().zero == run.zero) {
            merged.back().range.length += run.range.length;
        } else {
            merged.push_back(run);
        }
    }
    return merged;
}

// A piece under way: its memory, and which of its requests the endpoint has now.
class Worker::Slot final : public EndpointRequest {
  public:
    enum class Doing { reading, reading_target, writing, zeroing, flushing };

    explicit Slot(Worker& worker) : worker_(worker) {}
    void done(int result) noexcept override {
        error = result;
        worker_.ready_.push_back(this);
    }

    Piece piece;
    Doing doing = Doing::reading;
    int error = 0;
    Buffer data;
    Buffer target_data;  // when comparing
    std::vector<ZeroRun> runs;
    std::size_t next_run = 0;
    Range current;  // of the request under way

  private:
    Worker& worker_;
};

Worker::Worker(unsigned number, Parts parts, OpenedHandles first, WorkerOptions options)
    : parts_(std::move(parts)),
      options_(options),
      grain_({.block_bytes = std::max<std::size_t>(kBlockBytes,
                                                   std::bit_ceil(parts_.target.traits().alignment)),
              .min_run_bytes = kMinZeroRunBytes}),
      first_(std::move(first)),
      thread_({.name = "worker-" + std::to_string(number)}, [this](IoThread&) { run(); }) {
    thread_.start();
}

Worker::~Worker() {
    opening_cancelled_.request();
    thread_.request_stop();
    thread_.join();
    parts_.queue.leave(thread_);
}

void Worker::retire() noexcept {
    retiring_.store(true, std::memory_order_release);
    opening_cancelled_.request();
    thread_.wake();
}

void Worker::abandon() noexcept {
    abandoned_.store(true, std::memory_order_release);
    thread_.wake();
}

void Worker::run() {
    take_long_turns();
    std::optional<Ring> ring;
    OpenedEndpoint source;
    OpenedEndpoint target;
    try {
        ring.emplace(kRingEntries);
        source = parts_.source.open_endpoint(*ring, std::move(first_.source), opening_cancelled_);
        target = parts_.target.open_endpoint(*ring, std::move(first_.target), opening_cancelled_);
    } catch (const std::exception&) {
        ended_.store(true, std::memory_order_release);
        opened_.set_exception(std::current_exception());
        return;
    }
    open_.store(true, std::memory_order_release);
    opened_.set_value();
    serve(*ring, *source.endpoint, *target.endpoint);
    ended_.store(true, std::memory_order_release);
}

void Worker::serve(Ring& ring, Endpoint& source, Endpoint& target) {
    source_ = &source;
    target_ = &target;
    // As many as the queue gives, one for a flush, and a spare one: it is asked until it gives
    // none.
    const unsigned places = options_.requests + 2;
    // Two buffers for each request when comparing; the pool rounds up to a power of two.
    BufferPool pool(std::uint64_t{2} * places *
                    std::bit_ceil(std::max(options_.request_bytes, kMinPoolBytes)));
    for (unsigned i = 0; i < places; ++i) {
        Slot& slot = slots_.emplace_back(*this);
        free_.push_back(&slot);
    }
    WakeOperation wake(ring, thread_);
    source.watch();
    target.watch();
    while (!thread_.stop_requested()) {
        while (!ready_.empty()) {
            Slot& slot = *ready_.front();
            ready_.pop_front();
            step(slot);
        }
        if (!retiring()) {
            take_pieces(pool);
        } else {
            not_before_.reset();
            parts_.queue.leave(thread_);
            if (free_.size() == slots_.size()) {
                break;
            }
        }
        // Waits when nothing is left to do here: what was begun is in the ring, and a new piece
        // rings the wake-up.
        ring.run_once(ready_.empty(), time_to_next());
        if (abandoned_.exchange(false, std::memory_order_acq_rel)) {
            source.abandon();
            target.abandon();
        }
        if (lost() == nullptr && (source.lost() || target.lost())) {
            lost_.store(source.lost() ? &parts_.source : &parts_.target, std::memory_order_release);
        }
    }
    source.close();
    target.close();
    wake.disarm();
    while (ring.pending() > 0) {
        ring.run_once(true);
    }
    slots_.clear();
}

// Zero: nothing is known to come at a certain time.
std::chrono::milliseconds Worker::time_to_next() const {
    if (!not_before_) {
        return std::chrono::milliseconds(0);
    }
    const auto left = *not_before_ - std::chrono::steady_clock::now();
    return std::max(std::chrono::ceil<std::chrono::milliseconds>(left),
                    std::chrono::milliseconds(1));
}

void Worker::take_pieces(BufferPool& pool) {
    not_before_.reset();
    // What is complete at once goes on before more is begun: its data is still in the cache, and
    // the other side gets work early.
    while (!free_.empty() && ready_.empty()) {
        const WorkQueue::Popped next = parts_.queue.try_pop(thread_, options_.takes);
        if (!next.piece) {
            not_before_ = next.not_before;
            return;
        }
        const std::optional<Piece>& piece = next.piece;
        Slot& slot = *free_.back();
        free_.pop_back();
        if (!slot.data && reads(piece->kind)) {
            slot.data = pool.lease(options_.request_bytes);
        }
        if (!slot.target_data && reads_both(piece->kind)) {
            slot.target_data = pool.lease(options_.request_bytes);
        }
        begin(slot, *piece);
    }
}

void Worker::begin(Slot& slot, const Piece& piece) {
    slot.piece = piece;
    slot.current = piece.range;
    slot.runs.clear();
    slot.next_run = 0;
    if (is_on_map(piece.kind)) {
        parts_.map.begun(piece.range);
    }
    switch (piece.kind) {
        case Piece::Kind::copy:
        case Piece::Kind::compare:
        case Piece::Kind::update:
            slot.doing = Slot::Doing::reading;
            if (!slot.data || (reads_both(piece.kind) && !slot.target_data)) {
                slot.done(ENOMEM);
            } else {
                source_->read(slot, piece.range, slot.data.data());
            }
            break;
        case Piece::Kind::zero:
            slot.runs = {{piece.range, true}};
            next_run(slot);
            break;
        case Piece::Kind::flush:
            slot.doing = Slot::Doing::flushing;
            target_->flush(slot);
            break;
        case Piece::Kind::alike:
            piece_done(slot);
            break;
    }
}

// The request that `slot` had under way has completed.
void Worker::step(Slot& slot) {
    const std::string& target = parts_.target.name();
    switch (slot.doing) {
        case Slot::Doing::reading:
            slot.error != 0 ? piece_failed(slot, "read", parts_.source.name()) : data_read(slot);
            break;
        case Slot::Doing::reading_target:
            slot.error != 0 ? piece_failed(slot, "read", target) : compare(slot);
            break;
        case Slot::Doing::writing:
            if (slot.error != 0) {
                piece_failed(slot, "write", target);
                break;
            }
            parts_.counters.sent_bytes.fetch_add(slot.current.length, std::memory_order_relaxed);
            next_run(slot);
            break;
        case Slot::Doing::zeroing:
            if (slot.error != 0) {
                piece_failed(slot, "zero", target);
                break;
            }
            parts_.counters.zeroed_bytes.fetch_add(slot.current.length, std::memory_order_relaxed);
            next_run(slot);
            break;
        case Slot::Doing::flushing:
            slot.error != 0 ? piece_failed(slot, "flush", target) : piece_done(slot);
            break;
    }
}

void Worker::data_read(Slot& slot) {
    if (slot.piece.kind != Piece::Kind::copy) {
        slot.doing = Slot::Doing::reading_target;
        target_->read(slot, slot.piece.range, slot.target_data.data());
        return;
    }
    if (options_.detect_zeroes) {
        slot.runs = split_zeroes({slot.data.data(), slot.piece.range.length},
                                 slot.piece.range.offset, grain_);
    } else {
        slot.runs = {{slot.piece.range, false}};
    }
    next_run(slot);
}

void Worker::next_run(Slot& slot) {
    while (slot.next_run < slot.runs.size()) {
        const ZeroRun& run = slot.runs[slot.next_run++];
        slot.current = run.range;
        if (run.zero && slot.piece.target_is_zero) {
            continue;
        }
        const EndpointTraits& traits = parts_.target.traits();
        const bool can_zero = traits.can_zero && is_aligned(run.range.offset, traits.alignment) &&
                              is_aligned(run.range.length, traits.alignment);
        if (run.zero && (can_zero || slot.piece.kind == Piece::Kind::zero)) {
            slot.doing = Slot::Doing::zeroing;
            target_->zero(slot, run.range);
        } else {
            slot.doing = Slot::Doing::writing;
            target_->write(slot, run.range,
                           slot.data.data() + (run.range.offset - slot.piece.range.offset));
        }
        return;
    }
    piece_done(slot);
}

void Worker::compare(Slot& slot) {
    const std::size_t length = slot.piece.range.length;
    const std::byte* left = slot.data.data();
    const std::byte* right = slot.target_data.data();
    if (std::memcmp(left, right, length) != 0) {
        for (std::size_t at = 0; at < length; at += grain_.block_bytes) {
            const std::size_t part = std::min(grain_.block_bytes, length - at);
            if (std::memcmp(left + at, right + at, part) != 0) {
                differs(slot, {slot.piece.range.offset + at, part});
            }
        }
    }
    next_run(slot);
}

void Worker::differs(Slot& slot, Range block) {
    if (slot.piece.kind == Piece::Kind::compare) {
        parts_.differs(block);
        return;
    }
    const std::byte* data = slot.data.data() + (block.offset - slot.piece.range.offset);
    const bool zero = options_.detect_zeroes && is_all_zero({data, block.length});
    if (!slot.runs.empty() && slot.runs.back().range.end() == block.offset &&
        slot.runs.back().zero == zero) {
        slot.runs.back().range.length += block.length;
    } else {
        slot.runs.push_back({block, zero});
    }
}

void Worker::piece_done(Slot& slot) {
    // A flush has a range too, all of which was counted before.
    if (slot.piece.kind != Piece::Kind::flush) {
        parts_.counters.moved_bytes.fetch_add(slot.piece.range.length, std::memory_order_relaxed);
    }
    if (is_on_map(slot.piece.kind)) {
        parts_.map.ended(slot.piece.range, slot.piece.kind == Piece::Kind::zero
                                               ? BlockMap::End::zeroed
                                               : BlockMap::End::moved);
    }
    free_.push_back(&slot);
    parts_.queue.finished(thread_, slot.piece);
}

void Worker::piece_failed(Slot& slot, const char* verb, const std::string& where) {
    const Range range = slot.current;
    std::string sentence = std::string("cannot ") + verb + " ";
    if (slot.doing != Slot::Doing::flushing) {
        sentence += std::to_string(range.length) + " bytes at offset " +
                    std::to_string(range.offset) + " of ";
    }
    const bool lost = is_lost_connection(slot.error);
    if (lost && (slot.doing == Slot::Doing::writing || slot.doing == Slot::Doing::zeroing)) {
        parts_.unanswered(range);
    }
    parts_.queue.fail(
        {.sentence = sentence + where + ": " + error_text(slot.error), .connection_lost = lost});
    if (is_on_map(slot.piece.kind)) {
        parts_.map.ended(slot.piece.range, BlockMap::End::failed);
    }
    free_.push_back(&slot);
    parts_.queue.finished(thread_, slot.piece);
}

}  // namespace nbdm
