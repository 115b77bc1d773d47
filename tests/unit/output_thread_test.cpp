// SPDX-License-Identifier: Apache-2.0
#include "control/output_thread.h"

#include <chrono>
#include <fcntl.h>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "iothread/unique_fd.h"

namespace nbdm {
namespace {

constexpr std::chrono::minutes kLong(1);
constexpr std::chrono::milliseconds kNow(0);

std::string notice(std::size_t dropped) {
    return "[" + std::to_string(dropped) + "]";
}

// On a pipe of one page.
class Output : public testing::Test {
  protected:
    void SetUp() override {
        int ends[2];
        ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
        reader_ = UniqueFd(ends[0]);
        writer_ = UniqueFd(ends[1]);
        ::fcntl(reader_.get(), F_SETPIPE_SZ, kRoom);
        ASSERT_EQ(::fcntl(reader_.get(), F_GETPIPE_SZ), kRoom);
    }

    static void fill(int fd) {
        const std::string page(kRoom, '.');
        ASSERT_EQ(::write(fd, page.data(), page.size()), kRoom);
    }

    std::string read(std::size_t length) const {
        std::string text(length, '\0');
        std::size_t done = 0;
        while (done < length) {
            const ssize_t part = ::read(reader_.get(), text.data() + done, length - done);
            if (part <= 0) {
                ADD_FAILURE() << "nothing more after " << done;
                break;
            }
            done += static_cast<std::size_t>(part);
        }
        return text.substr(0, done);
    }

    [[nodiscard]] int writer() const { return writer_.get(); }

    static constexpr int kRoom = 4096;

  private:
    UniqueFd reader_;
    UniqueFd writer_;
};

TEST_F(Output, IsWrittenInTheOrderGiven) {
    OutputThread output(writer());
    output.write("one\n");
    output.write("two\n");
    EXPECT_TRUE(output.flush(kLong));
    EXPECT_TRUE(output.is_idle());
    EXPECT_EQ(read(8), "one\ntwo\n");
}

TEST_F(Output, WaitsForItsReaderAndHoldsUpNobody) {
    fill(writer());
    OutputThread output(writer());
    output.write("one\n");
    output.write("two\n");
    EXPECT_FALSE(output.is_idle());
    EXPECT_FALSE(output.flush(kNow));
    EXPECT_EQ(read(kRoom), std::string(kRoom, '.'));
    EXPECT_EQ(read(8), "one\ntwo\n");
    EXPECT_TRUE(output.flush(kLong));
}

TEST_F(Output, WaitsForTheReaderOfANonBlockingDescriptorToo) {
    fill(writer());
    ASSERT_EQ(::fcntl(writer(), F_SETFL, O_NONBLOCK), 0);
    OutputThread output(writer());
    output.write("text");
    EXPECT_FALSE(output.flush(kNow));
    EXPECT_EQ(read(kRoom + 4).substr(kRoom), "text");
}

TEST_F(Output, BeyondItsRoomIsDroppedAndTheReaderIsToldWhere) {
    fill(writer());
    OutputThread output(writer(), notice);
    const std::string text(OutputThread::kMaxWaitingBytes / 4, 'a');
    for (int i = 0; i < 4; ++i) {
        output.write(text);
    }
    output.write("b");  // one too many
    output.write("c");
    EXPECT_EQ(read(kRoom), std::string(kRoom, '.'));
    EXPECT_EQ(read(4 * text.size() + 3), std::string(4 * text.size(), 'a') + "[2]");
    EXPECT_TRUE(output.flush(kLong));
    output.write("d");
    EXPECT_EQ(read(1), "d");
}

TEST_F(Output, WithoutANoticeIsDroppedInSilence) {
    fill(writer());
    OutputThread output(writer());
    const std::string text(OutputThread::kMaxWaitingBytes, 'a');
    output.write(text);
    output.write("b");
    EXPECT_EQ(read(kRoom + text.size()).back(), 'a');
    EXPECT_TRUE(output.flush(kLong));
    output.write("c");
    EXPECT_EQ(read(1), "c");
}

TEST_F(Output, OneTextMayBeLargerThanTheRoom) {
    OutputThread output(writer());
    const std::string text(2 * OutputThread::kMaxWaitingBytes, 'a');
    output.write(text);
    EXPECT_EQ(read(text.size()), text);
}

TEST_F(Output, AnEndWithoutAReaderIsNotWaitedFor) {
    fill(writer());
    {
        OutputThread output(writer());
        output.write("one");
        output.write("two");
        EXPECT_FALSE(output.flush(kNow));
    }
    EXPECT_EQ(read(kRoom), std::string(kRoom, '.'));
    OutputThread another(writer());
    another.write("three");
    EXPECT_EQ(read(5), "three");
}

TEST(OutputRefused, IsDropped) {
    const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
    ASSERT_GE(full.get(), 0);
    OutputThread output(full.get(), notice);
    output.write("text");
    EXPECT_TRUE(output.flush(kLong));
}

}  // namespace
}  // namespace nbdm
