// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/conversation.h"

#include <algorithm>

#include "tests/fuzz/option_speaker.h"
#include "tests/fuzz/request_speaker.h"

namespace nbdm::fuzz {

namespace {

void damage(Random& random, Bytes& bytes) {
    for (std::uint64_t times = 1 + pick(random, 6); times > 0 && !bytes.empty(); --times) {
        // Most bytes are payload; what is worth changing stands near the start.
        const std::uint64_t reach =
            one_in(random, 2) ? bytes.size() : std::min<std::size_t>(bytes.size(), 400);
        const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(pick(random, reach));
        const auto left = static_cast<std::uint64_t>(bytes.end() - at);
        const auto some =
            static_cast<std::ptrdiff_t>(pick(random, std::min<std::uint64_t>(left, 40)));
        switch (pick(random, 5)) {
            case 0:
                *at ^= static_cast<std::byte>(1U << pick(random, 8));
                break;
            case 1:
                *at = static_cast<std::byte>(one_in(random, 2) ? 0 : 255);
                break;
            case 2:
                bytes.erase(at, at + some);
                break;
            case 3: {
                const Bytes again(at, at + some);
                bytes.insert(at, again.begin(), again.end());
                break;
            }
            default:
                if (one_in(random, 3)) {
                    bytes.erase(at, bytes.end());
                }
                break;
        }
    }
}

}  // namespace

std::uint64_t pick(Random& random, std::uint64_t below) {
    return below == 0 ? 0 : random() % below;
}

bool one_in(Random& random, unsigned times) {
    return pick(random, times) == 0;
}

Conversation make_conversation(Random& random, const Manners& manners) {
    Conversation made{
        .bytes = {}, .honest = manners.honest, .export_name = {}, .options = {}, .requests = {}};
    const bool extended = OptionSpeaker(random, manners, made).say_handshake();
    RequestSpeaker speaker(random, manners, made, extended);
    for (std::uint64_t requests = pick(random, manners.greedy ? 15 : 40); requests > 0;
         --requests) {
        speaker.say_request();
    }
    if (manners.greedy && one_in(random, 3)) {
        speaker.say_many_reads();
    }
    if (manners.greedy && one_in(random, 3)) {
        speaker.say_half_a_write();
    } else if (one_in(random, 2)) {
        speaker.say_goodbye();
    }
    if (!made.honest && one_in(random, 2)) {
        damage(random, made.bytes);
    }
    return made;
}

}  // namespace nbdm::fuzz
