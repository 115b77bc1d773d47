// SPDX-License-Identifier: Apache-2.0
#include "client/digest_source.h"

#include <algorithm>
#include <cstdio>

#include "client/block_status_question.h"
#include "iothread/check.h"

namespace nbdm {

namespace {

std::vector<std::string> with(const std::string& context, std::vector<std::string> contexts) {
    if (!context.empty()) {
        contexts.push_back(context);
    }
    return contexts;
}

}  // namespace

FileDigests::FileDigests(const DiskFile& file, std::uint64_t seed)
    : file_(file),
      fd_(file.open_again()),
      digests_(file, fd_.get(), seed),
      memory_(pool_.lease(BlockDigests::kMemoryBytes)) {
    if (!memory_) {
        throw JobError("there is no memory to compare " + file.path() + " in");
    }
}

std::vector<DigestRun> FileDigests::digests(Range range) {
    std::vector<DigestRun> runs;
    const int error = digests_.read(range, {memory_.data(), BlockDigests::kMemoryBytes}, runs);
    if (error != 0) {
        throw JobError("cannot read " + std::to_string(range.length) + " bytes at offset " +
                       std::to_string(range.offset) + " of " + file_.path() + ": " +
                       error_text(error));
    }
    return runs;
}

std::unique_ptr<NbdDigests> NbdDigests::connect(const std::string& uri, const std::string& context,
                                                std::uint64_t seed,
                                                const Cancellation& cancellation) {
    std::array<char, 17> digits{};
    std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(seed));
    Contexts parts;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        parts[i] = std::string("nbd-mirror:digest:") + digits.data() + ":" + std::to_string(i);
    }
    std::unique_ptr<NbdDigests> made(new NbdDigests(uri, context, parts, cancellation));
    return made->has_all() ? std::move(made) : nullptr;
}

NbdDigests::NbdDigests(const std::string& uri, const std::string& context, const Contexts& parts,
                       const Cancellation& cancellation)
    : parts_(parts),
      cancellation_(cancellation),
      handle_(uri, with(context, {parts.begin(), parts.end()}), cancellation) {}

bool NbdDigests::has_all() const {
    return std::ranges::all_of(parts_, [this](const std::string& part) {
        return nbd_can_meta_context(handle_.get(), part.c_str()) == 1;
    });
}

// Each part is told in stretches of its own, and each may stop short.
std::vector<DigestRun> NbdDigests::digests(Range range) {
    // It lasts as long as reading does, for which nothing has a limit.
    constexpr std::chrono::hours kNoLimit{24 * 365};
    const BlockStatuses statuses = ask_block_status(
        handle_, {.within = range, .what = "digests of the blocks", .limit = kNoLimit},
        cancellation_);
    std::array<std::span<const StatusRun>, std::tuple_size_v<Digest>> left;
    for (std::size_t i = 0; i < left.size(); ++i) {
        const auto found = statuses.find(parts_[i]);
        left[i] = found == statuses.end() ? std::span<const StatusRun>() : found->second;
    }
    std::vector<DigestRun> runs;
    std::uint64_t at = range.offset;
    while (std::ranges::none_of(left, [](const auto& part) { return part.empty(); })) {
        DigestRun run;
        std::uint64_t end = range.end();
        for (std::size_t i = 0; i < left.size(); ++i) {
            run.digest[i] = left[i].front().status;
            end = std::min(end, left[i].front().range.end());
        }
        run.range = Range::from_to(std::exchange(at, end), end);
        runs.push_back(run);
        for (auto& part : left) {
            part = part.subspan(part.front().range.end() == end ? 1 : 0);
        }
    }
    if (runs.empty()) {
        throw JobError(handle_.uri() + " gave no digests at offset " +
                       std::to_string(range.offset));
    }
    return runs;
}

}  // namespace nbdm
