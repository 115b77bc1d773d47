// SPDX-License-Identifier: Apache-2.0
#include "client/verification.h"

#include <algorithm>
#include <utility>

#include "client/differences.h"
#include "client/dirty_scout.h"

namespace nbdm {

namespace {

// Says that all of a disk is dirty from an offset on.
class DirtyFrom final : public Scout {
  public:
    DirtyFrom(Scout& scout, std::uint64_t from) : scout_(scout), from_(from) {}

    [[nodiscard]] std::vector<Extent> extents(Range within) override {
        return within.offset < from_
                   ? scout_.extents(Range::from_to(within.offset, std::min(within.end(), from_)))
                   : std::vector<Extent>{{.range = within}};
    }

  private:
    Scout& scout_;
    const std::uint64_t from_;
};

}  // namespace

void Verification::explain(Scout& dirtiness, Clock::time_point frozen_at) {
    frozen_at_ = frozen_at;
    drop_dirty(dirtiness);
}

void Verification::check_again(Engine& engine, const std::vector<Range>& ranges,
                               const std::function<void()>& tick) {
    KnownScout known(dirty_extents(ranges, size_bytes_));
    drop_dirty(known);
    TargetZeroes unknown(false);
    suspect(engine.compare({.only_dirty = true}, known, unknown, tick));
}

// What is dirty is copied and read once more. One answer may do for many suspects.
void Verification::drop_dirty(Scout& dirtiness) {
    std::vector<Suspect> left;
    std::vector<Extent> known;
    for (const Suspect& suspect : suspects_) {
        for (Range rest = suspect.range; !rest.empty();) {
            const auto holds = [&](const Extent& extent) {
                return extent.range.offset <= rest.offset && rest.offset < extent.range.end();
            };
            auto at = std::partition_point(known.begin(), known.end(), [&](const Extent& extent) {
                return extent.range.end() <= rest.offset;
            });
            if (at == known.end() || !holds(*at)) {
                known = dirtiness.extents(Range::from_to(rest.offset, size_bytes_));
                at = known.begin();
            }
            const Range part = Range::from_to(rest.offset, std::min(rest.end(), at->range.end()));
            if (!at->dirty) {
                left.push_back({part, suspect.since});
            }
            rest = Range::from_to(part.end(), rest.end());
        }
    }
    suspects_ = std::move(left);
}

// A write that it was read in the middle of would have been marked by the last freeze.
bool Verification::is_unexplained(const Suspect& suspect, Writers writers) const {
    return writers == Writers::wait || frozen_at_ - suspect.since >= kLongestWrite;
}

// A writer may have been faster than the comparison.
void Verification::suspect(const Differences::Found& found) {
    unchecked_from_ = std::min(found.complete_to, unchecked_from_);
    const Clock::time_point now = Clock::now();
    for (const Range& range : found.ranges) {
        if (suspects_.size() >= Differences::kMaxRanges) {
            unchecked_from_ = std::min(unchecked_from_, range.offset);
            break;
        }
        suspects_.push_back({range, now});
    }
    std::sort(suspects_.begin(), suspects_.end(),
              [](const Suspect& a, const Suspect& b) { return a.range.offset < b.range.offset; });
}

void Verification::check(Engine& engine, Source source, TargetZeroes& target_zeroes,
                         Writers writers, const std::function<void()>& tick) {
    drop_dirty(source.dirtiness);  // what has joined the generation since
    DirtyFrom unchecked(source.dirtiness, unchecked_from_);
    DirtyScout scout(unchecked, source.allocation, DirtyScout::Holes::where_dirty);
    const Differences::Found found =
        engine.compare({.only_dirty = true}, scout, target_zeroes, tick);
    unchecked_from_ = size_bytes_;
    suspect(found);
    std::vector<Range> due;
    for (const Suspect& suspect : suspects_) {
        if (is_unexplained(suspect, writers)) {
            due.push_back(suspect.range);
        }
    }
    if (!due.empty()) {
        KnownScout known(dirty_extents(due, size_bytes_));
        TargetZeroes unknown(false);
        const std::vector<Range> differences =
            engine.compare({.only_dirty = true}, known, unknown, tick).ranges;
        if (!differences.empty()) {
            throw VerificationFailed("the target is not what was copied to it:\n" +
                                     describe_first(differences));
        }
        std::erase_if(suspects_,
                      [&](const Suspect& suspect) { return is_unexplained(suspect, writers); });
    }
}

}  // namespace nbdm
