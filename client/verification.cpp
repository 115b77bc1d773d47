// SPDX-License-Identifier: Apache-2.0
#include "client/verification.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "client/copy.h"

namespace nbdm {

void Verification::explain(Scout& dirtiness) {
    explained_ = Clock::now();
    std::vector<Suspect> left;
    for (const Suspect& suspect : suspects_) {
        for (Range rest = suspect.range; !rest.empty();) {
            for (const Extent& extent : dirtiness.extents(rest)) {
                if (!extent.dirty) {
                    left.push_back({extent.range, suspect.since});
                }
                rest = Range::from_to(extent.range.end(), rest.end());
            }
        }
    }
    suspects_ = std::move(left);
}

// A write that it was read in the middle of would have been marked by the last freeze.
bool Verification::is_unexplained(const Suspect& suspect, Writers writers) const {
    return writers == Writers::wait || explained_ - suspect.since >= kLongestWrite;
}

bool Verification::check(Engine& engine, Scout& dirtiness, TargetZeroes& target_zeroes, What what,
                         Writers writers, const std::function<void()>& tick) {
    const Differences::Found found =
        engine.compare({.only_dirty = what == What::dirty}, dirtiness, target_zeroes, tick);
    const Clock::time_point now = Clock::now();
    for (const Range& range : found.ranges) {
        suspects_.push_back({range, now});
    }
    std::vector<Suspect> due;
    std::copy_if(suspects_.begin(), suspects_.end(), std::back_inserter(due),
                 [&](const Suspect& suspect) { return is_unexplained(suspect, writers); });
    if (!due.empty()) {
        KnownScout known(extents_of(due));
        TargetZeroes unknown(false);
        const std::vector<Range> differences =
            engine.compare({.only_dirty = true}, known, unknown, tick).ranges;
        if (!differences.empty()) {
            throw VerificationFailed("the target is not what was copied to it:\n" +
                                     describe_differences(first_differences(differences)));
        }
        std::erase_if(suspects_,
                      [&](const Suspect& suspect) { return is_unexplained(suspect, writers); });
    }
    if (suspects_.size() > Differences::kMaxRanges) {
        suspects_.clear();
        return false;
    }
    return found.all;
}

// Those are dirty, and the rest of the disk is not.
std::vector<Extent> Verification::extents_of(std::vector<Suspect> suspects) const {
    std::sort(suspects.begin(), suspects.end(),
              [](const Suspect& a, const Suspect& b) { return a.range.offset < b.range.offset; });
    std::vector<Extent> extents;
    std::uint64_t at = 0;
    const auto add = [&](std::uint64_t end, bool dirty) {
        if (end > at) {
            extents.push_back({.range = Range::from_to(at, end), .dirty = dirty});
            at = end;
        }
    };
    for (const Suspect& suspect : suspects) {
        add(suspect.range.offset, false);
        add(suspect.range.end(), true);
    }
    add(size_bytes_, false);
    return extents;
}

}  // namespace nbdm
