// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nbdm {

// Replaces the file at once and for good: a reader sees the old text or the new one, whole, also
// after a power cut. Throws std::system_error that names the path.
void write_file_durably(const std::string& path, std::string_view text);

// Both throw std::system_error that names the path; the rename may have happened by then.
void rename_durably(const std::string& from, const std::string& to);
// Makes a file that was just created there be found after a power cut.
void sync_directory_of(const std::string& path);

// Nothing when there is no such file. Throws std::system_error that names the path.
[[nodiscard]] std::optional<std::string> read_file(const std::string& path);

}  // namespace nbdm
