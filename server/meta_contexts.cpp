// SPDX-License-Identifier: Apache-2.0
#include "server/meta_contexts.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "server/fence.h"

namespace nbdm {

namespace {

constexpr std::string_view kAllocation = "base:allocation";
// Of a file: what it takes of its file system, and could take.
constexpr std::string_view kAllocated = "nbd-mirror:allocated";
constexpr std::string_view kRoom = "nbd-mirror:room";
// Of an export that waits for a mirror.
constexpr std::string_view kIncoming = "nbd-mirror:incoming";
// Of the disk and of the mirrors that fill it: Export::fingerprint(), Fence::order() and
// standing().
constexpr std::string_view kDisk = "nbd-mirror:disk";
constexpr std::string_view kFillers = "nbd-mirror:fillers";
constexpr std::string_view kMirrors = "nbd-mirror:mirrors";
// Of a client whose requests nobody waits for.
constexpr std::string_view kBackground = "nbd-mirror:background";
// One map, two names: QEMU's is what backup tools ask for.
constexpr std::array<std::string_view, 2> kDirtyPrefixes = {"nbd-mirror:dirty-bitmap:",
                                                            "qemu:dirty-bitmap:"};

std::vector<MetaContext> all_contexts(const Export& served) {
    std::vector<MetaContext> result;
    result.push_back({.name = std::string(kAllocation)});
    for (const std::string_view prefix : kDirtyPrefixes) {
        for (const std::string& name : served.trackers().names()) {
            if (const auto tracker = served.trackers().find(name)) {
                result.push_back({.name = std::string(prefix) + name,
                                  .kind = MetaContext::Kind::dirtiness,
                                  .tracker = *tracker});
            }
        }
    }
    return result;
}

// Those that are there when they are named, and not listed: they are for mirrors.
std::vector<MetaContext> unlisted_contexts(const Export& served) {
    std::vector<MetaContext> result;
    result.push_back({.name = std::string(kBackground), .kind = MetaContext::Kind::background});
    result.push_back({.name = std::string(kDisk), .kind = MetaContext::Kind::disk});
    result.push_back({.name = std::string(kFillers), .kind = MetaContext::Kind::fillers});
    result.push_back({.name = std::string(kMirrors), .kind = MetaContext::Kind::mirrors});
    if (served.file().space()) {
        result.push_back({.name = std::string(kAllocated), .kind = MetaContext::Kind::allocated});
        result.push_back({.name = std::string(kRoom), .kind = MetaContext::Kind::room});
    }
    if (served.landing().expected()) {
        result.push_back({.name = std::string(kIncoming), .kind = MetaContext::Kind::incoming});
    }
    return result;
}

// What can be any of very many names: nothing when `query` is none of them.
std::optional<MetaContext> named_context(const Export& served, const std::string& query) {
    const Landing& landing = served.landing();
    if (SessionName::parse(query, SessionName::kSession)) {
        return MetaContext{.name = query, .kind = MetaContext::Kind::session};
    }
    if (SessionName::parse(query, SessionName::kCommit) &&
        (landing.expected() || landing.landed())) {
        return MetaContext{.name = query, .kind = MetaContext::Kind::commit};
    }
    if (const auto part = DigestPart::parse(query)) {
        return MetaContext{.name = query, .kind = MetaContext::Kind::digest, .digest = *part};
    }
    return std::nullopt;
}

// Whether a connection that has one of them may not have the other.
bool exclude_each_other(const MetaContext& a, const MetaContext& b) {
    const bool digests = a.is_digest() && b.is_digest();
    return (a.is_of_mirror() && b.is_of_mirror()) ||
           (digests && (a.digest.seed != b.digest.seed || a.digest.part == b.digest.part));
}

// A query that ends with a colon is a namespace, or a namespace and the kind of its leaves.
bool lists(std::string_view query, std::string_view name) {
    return query.ends_with(':') && name.starts_with(query);
}

}  // namespace

std::optional<DigestPart> DigestPart::parse(std::string_view context) {
    constexpr std::string_view kPrefix = "nbd-mirror:digest:";
    constexpr std::size_t kSeedDigits = 16;
    if (!context.starts_with(kPrefix)) {
        return std::nullopt;
    }
    context.remove_prefix(kPrefix.size());
    if (context.size() != kSeedDigits + 2 || context[kSeedDigits] != ':') {
        return std::nullopt;
    }
    DigestPart result;
    const char* end = context.data() + kSeedDigits;
    const auto [parsed, error] = std::from_chars(context.data(), end, result.seed, 16);
    const char part = context.back();
    if (error != std::errc() || parsed != end || part < '0' || part > '3') {
        return std::nullopt;
    }
    result.part = static_cast<std::size_t>(part - '0');
    return result;
}

std::vector<MetaContext> match_meta_contexts(const Export& served,
                                             const std::vector<std::string>& queries,
                                             MetaQueryKind kind) {
    std::vector<MetaContext> all = all_contexts(served);
    std::vector<MetaContext> result;
    if (queries.empty() && kind == MetaQueryKind::list) {
        return all;
    }
    const auto add = [&](const MetaContext& context) {
        result.push_back(context);
        result.back().id =
            kind == MetaQueryKind::set ? static_cast<std::uint32_t>(result.size()) : 0;
    };
    const auto is_there = [&](const MetaContext& context) {
        return std::any_of(result.begin(), result.end(),
                           [&](const auto& other) { return other.name == context.name; });
    };
    const std::vector<MetaContext> unlisted = unlisted_contexts(served);
    for (const std::string& query : queries) {
        if (const auto named = named_context(served, query);
            named && std::ranges::none_of(result, [&](const auto& other) {
                return exclude_each_other(*named, other);
            })) {
            add(*named);
        }
        for (const MetaContext& context : unlisted) {
            if (query == context.name && !is_there(context)) {
                add(context);
            }
        }
        for (const MetaContext& context : all) {
            const bool matches = query == context.name ||
                                 (kind == MetaQueryKind::list && lists(query, context.name));
            if (matches && !is_there(context)) {
                add(context);
            }
        }
    }
    return result;
}

}  // namespace nbdm
