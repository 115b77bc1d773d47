// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>

#include "client/endpoint.h"
#include "iothread/disk_file.h"

namespace nbdm {

// A local file or block device.
class FileEndpoint final : public Endpoint {
  public:
    // `file` outlives the endpoint; several endpoints may share it.
    FileEndpoint(Ring& ring, DiskFile& file) : ring_(ring), file_(file) {}

    void read(EndpointRequest& request, Range range, std::byte* into) override {
        request.DiskOperation::read(ring_, file_, range, into);
    }
    void write(EndpointRequest& request, Range range, const std::byte* from) override {
        const auto turn = file_.take_write_turn();
        request.DiskOperation::write(ring_, file_, range, from, /*fua=*/false);
    }
    void zero(EndpointRequest& request, Range range) override {
        request.DiskOperation::zero(ring_, file_, range, {}, /*fua=*/false);
    }
    void flush(EndpointRequest& request) override { request.DiskOperation::flush(ring_, file_); }
    void abandon() override {}  // a file system answers, or nobody can help
    void close() override {}

  private:
    Ring& ring_;
    DiskFile& file_;
};

}  // namespace nbdm
