// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <stop_token>
#include <thread>

#include "server/connection.h"
#include "server/export.h"
#include "tests/fuzz/conversation.h"

namespace nbdm::fuzz {

// What the control socket may do while clients talk, at random: holds an export and releases it,
// slows its writers down and lets them go, and tells connections to stop. Until it is destroyed;
// then nothing is held or slowed down any more.
class Meddler {
  public:
    // `connections` outlive it; empty: none is told to stop.
    Meddler(Export& served, std::span<const std::unique_ptr<Connection>> connections,
            Random random);
    Meddler(const Meddler&) = delete;
    Meddler& operator=(const Meddler&) = delete;
    ~Meddler() = default;

  private:
    void run(const std::stop_token& stop);
    void meddle();

    Export& served_;
    const std::span<const std::unique_ptr<Connection>> connections_;
    Random random_;
    std::jthread thread_;
};

}  // namespace nbdm::fuzz
