// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/cancellation.h"
#include "client/digest_source.h"
#include "client/endpoint.h"
#include "client/location.h"
#include "client/nbd_handle.h"
#include "client/opened_disk.h"
#include "client/scout.h"
#include "client/target_content.h"
#include "iothread/disk_file.h"

namespace nbdm {

// Connections that stand already and have no user yet; null where there is none.
struct OpenedHandles {
    std::unique_ptr<NbdHandle> source;
    std::unique_ptr<NbdHandle> target;
};

// What a worker holds of one side of a copy; the handle outlives the endpoint on it.
struct OpenedEndpoint {
    std::unique_ptr<NbdHandle> handle;  // null where data is read from a file
    std::unique_ptr<Endpoint> endpoint;
};

// One side of a copy, the source or the target: opened once, used by every worker. A server that
// does not promise multi-conn gets one connection in all (some accept no second one): it answers
// for the extents first, in full, and is then the worker's.
//
// Threads: opened by one; its const methods by any.
class Side {
  public:
    // A path or an NBD URI to read from. Throws JobError or std::system_error with the name.
    [[nodiscard]] static Side open_source(const Location& location,
                                          const Cancellation& cancellation);
    // An export of a server of this machine, at an NBD URI. Where this program can open `disk`, and
    // it is at the same place, data is read from it, in the way in which the server writes it,
    // which is as if the server read it; extents and dirtiness are asked over NBD all the same. A
    // disk that cannot be opened is no failure. Throws as open_source().
    [[nodiscard]] static Side open_export(const Location& location, const OpenedDisk& disk,
                                          const Cancellation& cancellation);
    struct TargetOptions {
        std::optional<std::uint64_t> create_bytes;  // make a file that is missing
        bool is_zero = false;                       // the caller vouches that it reads as zero
        std::string session;  // metadata context of all connections; empty: none
    };
    // With a session: throws ConnectionLost when the connections of another one stay.
    [[nodiscard]] static Side open_target(const Location& location, const TargetOptions& options,
                                          const Cancellation& cancellation);

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] const EndpointTraits& traits() const noexcept { return traits_; }
    // Everything in it reads as zero, as far as anyone has said or it was just made.
    [[nodiscard]] bool is_zero() const noexcept { return is_zero_; }
    // The client's end of the TCP connection it was opened with, until that is taken; or empty.
    [[nodiscard]] std::string local_address() const {
        return first_ ? first_->local_address() : "";
    }
    // As far as it was known when the side was opened, to the MiB: what of it is allocated, and how
    // much may be at most.
    struct Space {
        std::optional<std::uint64_t> allocated_bytes;
        std::optional<std::uint64_t> room_bytes;
    };
    [[nodiscard]] const Space& space() const noexcept { return space_; }
    // As of when the side was opened; nothing: not known.
    [[nodiscard]] const std::optional<TargetContent>& content() const noexcept { return content_; }

    // With a tracker: NBD only; extents say what is dirty in its frozen map.
    [[nodiscard]] std::unique_ptr<Scout> open_scout(const std::string& tracker,
                                                    const Cancellation& cancellation) const;
    // Null when it makes no digests.
    [[nodiscard]] std::unique_ptr<DigestSource> open_digests(
        std::uint64_t seed, const Cancellation& cancellation) const;
    // Whether data of a server's export is read from its disk.
    [[nodiscard]] bool reads_disk() const noexcept { return disk_ != nullptr; }
    // Data is read from a disk, and by its place that is another one than `disk`.
    [[nodiscard]] bool reads_another(const OpenedDisk& disk) const noexcept {
        return disk_ && disk_->place() != disk.place;
    }
    // The connection that the side was opened with, once; null where data is read from a file, and
    // later on.
    [[nodiscard]] std::unique_ptr<NbdHandle> take_handle() noexcept { return std::move(first_); }
    // Connects where `handle` is null and data is not read from a file.
    [[nodiscard]] OpenedEndpoint open_endpoint(Ring& ring, std::unique_ptr<NbdHandle> handle,
                                               const Cancellation& cancellation) const;

  private:
    Side() = default;
    void use_file(std::unique_ptr<DiskFile> file);
    void use_server(const std::string& uri, const Cancellation& cancellation);
    void wait_until_alone(const Cancellation& cancellation);
    void ask_server(const Cancellation& cancellation);
    [[nodiscard]] bool read_from_disk(const OpenedDisk& disk);
    // With the context of all connections, and these.
    [[nodiscard]] std::unique_ptr<NbdHandle> connect(std::vector<std::string> meta_contexts,
                                                     const Cancellation& cancellation) const;

    std::string name_;
    std::string context_;               // of all connections; empty: none
    std::string uri_;                   // empty for a file
    std::unique_ptr<DiskFile> file_;    // null for a server
    std::unique_ptr<DiskFile> disk_;    // of a server's export, where data is read from it
    std::unique_ptr<NbdHandle> first_;  // null for a file or a disk, and once it was taken
    EndpointTraits traits_;
    Space space_;
    std::optional<TargetContent> content_;
    std::uint32_t mirrors_ = 0;  // that fill it, with this one
    bool is_zero_ = false;
};

}  // namespace nbdm
