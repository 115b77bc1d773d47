// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

namespace nbdm {

// Takes a request's body apart, key by key. What is missing, of another kind or out of its limits
// throws std::invalid_argument with a sentence, which an HttpServer answers with 400.
//
// Threads: one at a time. The body outlives it.
class RequestBody {
  public:
    explicit RequestBody(const nlohmann::json& body) : body_(body) {}

    [[nodiscard]] std::string text(const std::string& key);
    [[nodiscard]] std::optional<std::string> optional_text(const std::string& key);
    [[nodiscard]] std::uint64_t number(const std::string& key, std::uint64_t least,
                                       std::uint64_t most);
    [[nodiscard]] std::optional<std::uint64_t> optional_number(const std::string& key,
                                                               std::uint64_t least,
                                                               std::uint64_t most);
    // At least one; each can be taken apart as a body.
    [[nodiscard]] const nlohmann::json::array_t& objects(const std::string& key);
    // False when it is missing.
    [[nodiscard]] bool flag(const std::string& key);
    // Refuses keys that were not asked for: a misspelt one must not be taken for a missing one.
    void end() const;

  private:
    [[nodiscard]] const nlohmann::json* find(const std::string& key);

    const nlohmann::json& body_;
    std::set<std::string> known_;
};

}  // namespace nbdm
