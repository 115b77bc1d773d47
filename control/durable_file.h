// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "iothread/unique_fd.h"

namespace nbdm {

// A file that is to be replaced at once and for good: a reader sees the old text or the new one,
// whole, also after a power cut. All that takes space or time is done before commit().
//
// Threads: one at a time. Blocks as long as the storage does. Fails: std::system_error that names
//          the path.
class DurableFile {
  public:
    // The text is on the storage, beside `path`, when it returns.
    DurableFile(const std::string& path, std::string_view text);
    DurableFile(const DurableFile&) = delete;
    DurableFile& operator=(const DurableFile&) = delete;
    ~DurableFile();  // without a commit, nothing has changed

    // Once. When it throws, the text may have been replaced already.
    void commit();
    // After a commit() that may have replaced it: the file is not there, for good. Nothing is done
    // after one that has certainly not.
    void remove();

    [[nodiscard]] const std::string& path() const noexcept { return path_; }

  private:
    void sync_directory() const;

    const std::string path_;
    const std::string name_;       // in the directory
    const std::string temporary_;  // likewise
    // Stays the same one, wherever it is moved meanwhile.
    const UniqueFd directory_;
    bool temporary_stands_ = true;
    bool may_stand_ = false;  // the file, as it was committed
};

// The same in one step.
void write_file_durably(const std::string& path, std::string_view text);

// Removes what processes that were killed while they wrote have left in the directory, each
// "*.new"; what is younger than an hour may be another's that still writes. What cannot be removed
// stays.
void remove_leftovers(const std::string& directory) noexcept;

// Makes a file that was just created there be found after a power cut. Throws std::system_error
// that names the path.
void sync_directory_of(const std::string& path);

// Nothing when there is no such file. Throws std::system_error that names the path.
[[nodiscard]] std::optional<std::string> read_file(const std::string& path);

}  // namespace nbdm
