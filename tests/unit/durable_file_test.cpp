// SPDX-License-Identifier: Apache-2.0
#include "control/durable_file.h"

#include <chrono>
#include <filesystem>
#include <iterator>
#include <system_error>

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "tests/unit/test_support.h"

namespace nbdm {
namespace {

std::size_t files_in(const std::string& directory) {
    const std::filesystem::directory_iterator files(directory);
    return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

TEST(DurableFile, WhatWasWrittenIsRead) {
    const TemporaryDirectory directory;
    const std::string text = std::string("a\0b\n", 4) + std::string(100'000, 'x');
    write_file_durably(directory.file("state"), text);
    EXPECT_EQ(read_file(directory.file("state")), text);
}

TEST(DurableFile, ShorterTextReplacesLongerAndNothingElseIsLeft) {
    const TemporaryDirectory directory;
    write_file_durably(directory.file("state"), "a long first text");
    write_file_durably(directory.file("state"), "short");
    EXPECT_EQ(read_file(directory.file("state")), "short");
    EXPECT_EQ(files_in(directory.path()), 1U);
}

TEST(DurableFile, ReaderWithTheOldFileOpenKeepsTheOldText) {
    const TemporaryDirectory directory;
    write_file_durably(directory.file("state"), "old");
    std::filesystem::create_hard_link(directory.file("state"), directory.file("as opened"));
    write_file_durably(directory.file("state"), "new");
    EXPECT_EQ(read_file(directory.file("as opened")), "old");
}

TEST(DurableFile, OnlyItsOwnerMayReadIt) {
    const TemporaryDirectory directory;
    write_file_durably(directory.file("state"), "x");
    struct stat status {};
    ASSERT_EQ(::stat(directory.file("state").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
}

TEST(DurableFile, MissingFileIsNothingAndNotAnError) {
    const TemporaryDirectory directory;
    EXPECT_EQ(read_file(directory.file("missing")), std::nullopt);
}

TEST(DurableFile, ARenameThatWasDoneAlthoughItFailedIsUndone) {
    const TemporaryDirectory directory;
    DurableFile file(directory.file("state"), "x");
    // As a server's answer to a rename that it was asked for twice: the first one was done.
    const std::filesystem::directory_iterator temporary(directory.path());
    std::filesystem::rename(temporary->path(), directory.file("state"));
    EXPECT_THROW(file.commit(), std::system_error);
    ASSERT_TRUE(std::filesystem::exists(directory.file("state")));
    file.remove();
    EXPECT_EQ(files_in(directory.path()), 0U);
}

TEST(DurableFile, FailedReplacementNamesThePathAndLeavesNoTemporaryFile) {
    const TemporaryDirectory directory;
    const std::string in_the_way = directory.file("a directory");
    std::filesystem::create_directory(in_the_way);
    try {
        write_file_durably(in_the_way, "x");
        ADD_FAILURE() << "a directory was replaced by a file";
    } catch (const std::system_error& error) {
        EXPECT_NE(std::string(error.what()).find(in_the_way), std::string::npos);
    }
    EXPECT_EQ(files_in(directory.path()), 1U);
}

TEST(DurableFile, NothingHasChangedWithoutACommit) {
    const TemporaryDirectory directory;
    write_file_durably(directory.file("state"), "old");
    {
        const DurableFile given_up(directory.file("state"), "new");
        EXPECT_EQ(read_file(directory.file("state")), "old");
    }
    EXPECT_EQ(read_file(directory.file("state")), "old");
    EXPECT_EQ(files_in(directory.path()), 1U);
}

TEST(DurableFile, OnlyOldLeftoversAreRemoved) {
    const TemporaryDirectory directory;
    const auto make = [&](const std::string& name, std::chrono::hours age) {
        write_file_durably(directory.file(name), "x");
        std::filesystem::last_write_time(directory.file(name),
                                         std::filesystem::file_time_type::clock::now() - age);
    };
    make("old.json.17.new", std::chrono::hours(2));
    make("young.json.17.new", std::chrono::hours(0));
    make("old.json", std::chrono::hours(2));
    remove_leftovers(directory.path());
    EXPECT_EQ(read_file(directory.file("old.json.17.new")), std::nullopt);
    EXPECT_NE(read_file(directory.file("young.json.17.new")), std::nullopt);
    EXPECT_NE(read_file(directory.file("old.json")), std::nullopt);
    remove_leftovers(directory.file("missing"));
}

TEST(DurableFile, UnreadableFileIsAnErrorThatNamesThePath) {
    const TemporaryDirectory directory;
    try {
        const auto text = read_file(directory.path());
        ADD_FAILURE() << "a directory was read as a file";
    } catch (const std::system_error& error) {
        EXPECT_EQ(error.code().value(), EISDIR);
        EXPECT_NE(std::string(error.what()).find(directory.path()), std::string::npos);
    }
}

}  // namespace
}  // namespace nbdm
