// SPDX-License-Identifier: Apache-2.0
#include "control/request_body.h"

#include <functional>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

namespace nbdm {
namespace {

using nlohmann::json;

std::string refusal(const std::string& text, const std::function<void(RequestBody&)>& read) {
    const json parsed = json::parse(text);
    RequestBody body(parsed);
    try {
        read(body);
        body.end();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "";
}

TEST(RequestBody, SaysWhichKeyIsWrongAndHow) {
    const auto lease = [](RequestBody& body) { (void)body.number("lease_ms", 1, 60000); };
    EXPECT_EQ(refusal(R"({"lease_ms": 60000})", lease), "");
    EXPECT_EQ(refusal("{}", lease), "'lease_ms' is missing");
    for (const char* wrong : {R"({"lease_ms": 0})", R"({"lease_ms": -1})", R"({"lease_ms": "1"})",
                              R"({"lease_ms": 1.5})", R"({"lease_ms": 60001})"}) {
        EXPECT_EQ(refusal(wrong, lease), "'lease_ms' is a whole number from 1 to 60000") << wrong;
    }
    const auto hold = [](RequestBody& body) { (void)body.text("hold"); };
    EXPECT_EQ(refusal(R"({"hold": 1})", hold), "'hold' is a text");
    const auto exclusive = [](RequestBody& body) { (void)body.flag("exclusive"); };
    EXPECT_EQ(refusal(R"({"exclusive": "yes"})", exclusive), "'exclusive' is true or false");
    EXPECT_EQ(refusal("{}", exclusive), "");
}

TEST(RequestBody, AListHasObjectsAndAtLeastOne) {
    const auto exports = [](RequestBody& body) { (void)body.objects("exports"); };
    EXPECT_EQ(refusal(R"({"exports": [{"name": "a"}, {}]})", exports), "");
    EXPECT_EQ(refusal("{}", exports), "'exports' is missing");
    for (const char* wrong : {R"({"exports": []})", R"({"exports": {"name": "a"}})",
                              R"({"exports": ["a"]})", R"({"exports": [{}, null]})"}) {
        EXPECT_EQ(refusal(wrong, exports), "'exports' is a list of objects") << wrong;
    }
}

TEST(RequestBody, AMisspeltKeyIsNotAMissingOne) {
    EXPECT_EQ(
        refusal(R"({"granularty": 65536})",
                [](RequestBody& body) { (void)body.optional_number("granularity", 4096, 65536); }),
        "'granularty' is not known here");
}

}  // namespace
}  // namespace nbdm
