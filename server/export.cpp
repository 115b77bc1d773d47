// SPDX-License-Identifier: Apache-2.0
#include "server/export.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "control/durable_file.h"
#include "control/log.h"
#include "iothread/check.h"
#include "server/host_use.h"
#include "server/image_format.h"

namespace nbdm {

Export::Export(ExportOptions options, int drained_fd)
    : options_(std::move(options)),
      file_(options_.path, {.writable = !options_.read_only,
                            .cache = options_.cache,
                            .create_bytes = options_.create_bytes}),
      fingerprint_(identity().fingerprint()),
      gate_(drained_fd),
      trackers_(file_.size_bytes()) {
    if (file_.created()) {
        sync_directory_of(file_.path());
    } else if (options_.create_bytes && size_bytes() != *options_.create_bytes) {
        log_warning(quoted() + ": '" + file_.path() + "' has " + std::to_string(size_bytes()) +
                    " bytes already, not the " + std::to_string(*options_.create_bytes) +
                    " of size=; it is served as it is");
    } else if (size_bytes() == 0) {
        log_warning(quoted() + ": '" + file_.path() + "' is empty");
    }
    if (!options_.read_only) {
        warn_of_mistakes();
    }
}

void Export::warn_of_mistakes() const {
    const std::string disk = quoted() + ": '" + file_.path() + "' ";
    if (const std::string_view format = image_format_of(file_); !format.empty()) {
        log_warning(disk + "begins like a " + std::string(format) +
                    " image; clients read and write the image's own raw bytes, not the disk in it");
    }
    if (const std::string use = host_use_of(file_); !use.empty()) {
        log_warning(disk + "is " + use +
                    "; when the host and clients both write to it, its content is lost");
    }
}

Export::Resized Export::notice_growth() {
    const std::uint64_t stored = file_.stored_bytes();
    if (stored <= size_bytes()) {
        return stored == size_bytes() ? Resized::same : Resized::smaller;
    }
    // The maps first: nobody writes beyond the old end before the file says that there is more.
    if (!trackers_.grow_to(stored)) {
        return Resized::tracked;
    }
    file_.grow_to(stored);
    return Resized::grown;
}

void Export::note_write_back_error(int error) noexcept {
    int none = 0;
    if (write_back_error_.compare_exchange_strong(none, error, std::memory_order_acq_rel)) {
        log_error(quoted() + ": a data sync failed (" + error_text(error) +
                  "), written data may be lost; from now on every flush fails");
    }
}

Export& ExportTable::add(std::unique_ptr<Export> made) {
    if (find(made->name()) != nullptr) {
        throw std::invalid_argument("two exports have the name '" + made->name() + "'");
    }
    return *exports_.emplace_back(std::move(made));
}

Export* ExportTable::find(std::string_view name) const noexcept {
    const auto found = std::find_if(exports_.begin(), exports_.end(),
                                    [&](const auto& each) { return each->name() == name; });
    return found == exports_.end() ? nullptr : found->get();
}

}  // namespace nbdm
