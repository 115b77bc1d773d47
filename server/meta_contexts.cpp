// SPDX-License-Identifier: Apache-2.0
#include "server/meta_contexts.h"

#include <algorithm>
#include <array>

#include "server/fence.h"

namespace nbdm {

namespace {

constexpr std::string_view kAllocation = "base:allocation";
// Of a file: what it takes of its file system, and could take.
constexpr std::string_view kAllocated = "nbd-mirror:allocated";
constexpr std::string_view kRoom = "nbd-mirror:room";
// Of an export that waits for a mirror.
constexpr std::string_view kIncoming = "nbd-mirror:incoming";
// Of a client whose requests nobody waits for.
constexpr std::string_view kBackground = "nbd-mirror:background";
// One map, two names: QEMU's is what backup tools ask for.
constexpr std::array<std::string_view, 2> kDirtyPrefixes = {"nbd-mirror:dirty-bitmap:",
                                                            "qemu:dirty-bitmap:"};

std::vector<MetaContext> all_contexts(const Export& served) {
    std::vector<MetaContext> result;
    result.push_back({.name = std::string(kAllocation), .tracker = {}});
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
    result.push_back(
        {.name = std::string(kBackground), .kind = MetaContext::Kind::background, .tracker = {}});
    if (served.file().space()) {
        result.push_back(
            {.name = std::string(kAllocated), .kind = MetaContext::Kind::allocated, .tracker = {}});
        result.push_back(
            {.name = std::string(kRoom), .kind = MetaContext::Kind::room, .tracker = {}});
    }
    if (served.landing().expected()) {
        result.push_back(
            {.name = std::string(kIncoming), .kind = MetaContext::Kind::incoming, .tracker = {}});
    }
    return result;
}

// A query that ends with a colon is a namespace, or a namespace and the kind of its leaves.
bool lists(std::string_view query, std::string_view name) {
    return query.ends_with(':') && name.starts_with(query);
}

}  // namespace

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
    bool has_session = false;
    for (const std::string& query : queries) {
        const bool commits = SessionName::parse(query, SessionName::kCommit) &&
                             (served.landing().expected() || served.landing().landed());
        if (!has_session && (commits || SessionName::parse(query, SessionName::kSession))) {
            has_session = true;
            add({.name = query,
                 .kind = commits ? MetaContext::Kind::commit : MetaContext::Kind::session,
                 .tracker = {}});
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
