// SPDX-License-Identifier: Apache-2.0
#include "server/meta_contexts.h"

#include <cstdlib>
#include <unistd.h>

#include <gtest/gtest.h>

namespace nbdm {

namespace {

class MetaContexts : public testing::Test {
  protected:
    MetaContexts() { EXPECT_EQ(served_.trackers().add("t", 65536), TrackerSet::Added::created); }
    ~MetaContexts() override { ::unlink(path_.c_str()); }

    static std::vector<std::string> names(const std::vector<MetaContext>& contexts) {
        std::vector<std::string> result;
        for (const MetaContext& context : contexts) {
            result.push_back(context.name);
        }
        return result;
    }

    std::string path_ = testing::TempDir() + "nbd-mirror-meta-" + std::to_string(::getpid());
    Export served_{{.name = "d", .path = path_, .description = {}, .create_bytes = 1 << 20}, -1};
};

using Names = std::vector<std::string>;

}  // namespace

TEST_F(MetaContexts, NoQueryListsAllAndSetsNone) {
    EXPECT_EQ(names(match_meta_contexts(served_, {}, MetaQueryKind::list)),
              (Names{"base:allocation", "nbd-mirror:dirty-bitmap:t", "qemu:dirty-bitmap:t"}));
    EXPECT_TRUE(match_meta_contexts(served_, {}, MetaQueryKind::set).empty());
}

TEST_F(MetaContexts, ANamespaceListsItsLeavesButSelectsNothing) {
    EXPECT_EQ(names(match_meta_contexts(served_, {"qemu:"}, MetaQueryKind::list)),
              (Names{"qemu:dirty-bitmap:t"}));
    EXPECT_TRUE(match_meta_contexts(served_, {"base:"}, MetaQueryKind::set).empty());
}

TEST_F(MetaContexts, AContextIsSelectedOnceWithAnIdOfItsOwn) {
    const auto set = match_meta_contexts(
        served_, {"base:allocation", "base:allocation", "nbd-mirror:dirty-bitmap:t", "x:y"},
        MetaQueryKind::set);
    ASSERT_EQ(names(set), (Names{"base:allocation", "nbd-mirror:dirty-bitmap:t"}));
    EXPECT_NE(set[0].id, set[1].id);
    EXPECT_EQ(set[0].kind, MetaContext::Kind::allocation);
    EXPECT_EQ(set[1].kind, MetaContext::Kind::dirtiness);
}

TEST_F(MetaContexts, WhatOnlyMirrorsAskForIsThereWhenItIsNamedAndNotListed) {
    const std::vector<std::string> asked = {"nbd-mirror:allocated", "nbd-mirror:room",
                                            "nbd-mirror:room", "nbd-mirror:incoming",
                                            "nbd-mirror:commit:vm1:7"};
    // The export is a file, and not incoming.
    EXPECT_EQ(names(match_meta_contexts(served_, asked, MetaQueryKind::set)),
              (Names{"nbd-mirror:allocated", "nbd-mirror:room"}));
    WaitingPlaces places(1);
    served_.landing().expect([](const std::string&) {}, places);
    EXPECT_EQ(names(match_meta_contexts(served_, asked, MetaQueryKind::set)),
              (Names{"nbd-mirror:allocated", "nbd-mirror:room", "nbd-mirror:incoming",
                     "nbd-mirror:commit:vm1:7"}));
    EXPECT_EQ(names(match_meta_contexts(served_, {}, MetaQueryKind::list)),
              (Names{"base:allocation", "nbd-mirror:dirty-bitmap:t", "qemu:dirty-bitmap:t"}));
}

TEST_F(MetaContexts, ASessionIsThereWhenItIsNamedAndAConnectionHasOne) {
    const auto set = match_meta_contexts(
        served_, {"nbd-mirror:session:vm1:7", "nbd-mirror:session:vm2:8"}, MetaQueryKind::set);
    ASSERT_EQ(names(set), (Names{"nbd-mirror:session:vm1:7"}));
    EXPECT_EQ(set[0].kind, MetaContext::Kind::session);
    EXPECT_EQ(names(match_meta_contexts(served_, {"nbd-mirror:"}, MetaQueryKind::list)),
              (Names{"nbd-mirror:dirty-bitmap:t"}));
}

TEST_F(MetaContexts, AClientSaysThatItIsInTheBackgroundByASelection) {
    const auto set = match_meta_contexts(
        served_, {"nbd-mirror:background", "nbd-mirror:background"}, MetaQueryKind::set);
    ASSERT_EQ(names(set), (Names{"nbd-mirror:background"}));
    EXPECT_TRUE(set[0].is_background());
    const auto other = match_meta_contexts(served_, {"base:allocation", "nbd-mirror:session:vm1:7"},
                                           MetaQueryKind::set);
    EXPECT_FALSE(other.at(0).is_background());
    EXPECT_TRUE(other.at(1).is_background()) << "a mirror's, which writes";
}

TEST_F(MetaContexts, DigestsAreThereWhenTheyAreNamedEachPartOnceAndOfOneSeed) {
    const std::string seed = "nbd-mirror:digest:00000000000000aF:";
    const auto set =
        match_meta_contexts(served_,
                            {seed + "3", seed + "0", "nbd-mirror:digest:00000000000000b0:1",
                             seed + "0", "nbd-mirror:digest:00000000000000AF:0"},
                            MetaQueryKind::set);
    ASSERT_EQ(names(set), (Names{seed + "3", seed + "0"}));
    EXPECT_EQ(set[0].digest.seed, 0xAFU);
    EXPECT_EQ(set[0].digest.part, 3U);
    EXPECT_EQ(names(match_meta_contexts(served_, {"nbd-mirror:"}, MetaQueryKind::list)),
              (Names{"nbd-mirror:dirty-bitmap:t"}));
    for (const char* wrong :
         {"nbd-mirror:digest:", "nbd-mirror:digest:af:0", "nbd-mirror:digest:00000000000000af:4",
          "nbd-mirror:digest:00000000000000af:", "nbd-mirror:digest:00000000000000ag:0",
          "nbd-mirror:digest:-0000000000000af:0", "nbd-mirror:digest:00000000000000af:00"}) {
        EXPECT_TRUE(match_meta_contexts(served_, {wrong}, MetaQueryKind::set).empty()) << wrong;
    }
}

}  // namespace nbdm
