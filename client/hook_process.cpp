// SPDX-License-Identifier: Apache-2.0
#include "client/hook_process.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <unistd.h>
#include <utility>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "iothread/check.h"
#include "iothread/unique_fd.h"

namespace nbdm {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Of one line, and of all lines with what a log adds to each, that are passed on: no hook fills the
// log.
constexpr std::size_t kMaxLineBytes = 1024;
constexpr std::size_t kMaxSaidBytes = 64 << 10;
constexpr std::size_t kLogLineBytes = 64;
constexpr milliseconds kStep{50};

// Cuts output into lines.
class Lines {
  public:
    explicit Lines(const std::function<void(std::string_view)>& say) : say_(say) {}

    void add(std::string_view bytes) {
        while (!bytes.empty()) {
            const std::size_t end = bytes.find('\n');
            const std::string_view part = bytes.substr(0, end);
            line_.append(part.substr(0, kMaxLineBytes - std::min(line_.size(), kMaxLineBytes)));
            if (end == std::string_view::npos) {
                return;
            }
            end_line();
            bytes.remove_prefix(end + 1);
        }
    }

    // Returns the last line.
    [[nodiscard]] std::string finish() {
        end_line();
        if (left_out_ > 0) {
            say_("(" + std::to_string(left_out_) + " more lines are left out)");
        }
        return last_;
    }

  private:
    void end_line() {
        if (line_.empty()) {
            return;
        }
        if (said_bytes_ < kMaxSaidBytes) {
            say_(line_);
            said_bytes_ += line_.size() + kLogLineBytes;
        } else {
            ++left_out_;
        }
        last_ = std::exchange(line_, {});
    }

    const std::function<void(std::string_view)>& say_;
    std::string line_;
    std::string last_;
    std::size_t said_bytes_ = 0;
    std::size_t left_out_ = 0;
};

// A file that nobody else has, so that a hook that does not read it delays nobody.
UniqueFd file_with(std::string_view text) {
    UniqueFd fd(check_errno(::memfd_create("hook-input", MFD_CLOEXEC), "cannot make a file"));
    while (!text.empty()) {
        const ssize_t written = ::write(fd.get(), text.data(), text.size());
        text.remove_prefix(
            static_cast<std::size_t>(check_errno(static_cast<int>(written), "cannot write")));
    }
    ::lseek(fd.get(), 0, SEEK_SET);
    return fd;
}

class SpawnActions {
  public:
    SpawnActions() { ::posix_spawn_file_actions_init(&actions_); }
    SpawnActions(const SpawnActions&) = delete;
    SpawnActions& operator=(const SpawnActions&) = delete;
    ~SpawnActions() { ::posix_spawn_file_actions_destroy(&actions_); }

    [[nodiscard]] posix_spawn_file_actions_t* get() noexcept { return &actions_; }

  private:
    posix_spawn_file_actions_t actions_{};
};

// A group of its own, and no signal ignored or blocked: this program ignores SIGPIPE.
class SpawnAttributes {
  public:
    SpawnAttributes() {
        ::posix_spawnattr_init(&attributes_);
        sigset_t set{};
        ::sigemptyset(&set);
        ::posix_spawnattr_setsigmask(&attributes_, &set);
        ::sigfillset(&set);
        ::posix_spawnattr_setsigdefault(&attributes_, &set);
        ::posix_spawnattr_setpgroup(&attributes_, 0);
        ::posix_spawnattr_setflags(
            &attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    }
    SpawnAttributes(const SpawnAttributes&) = delete;
    SpawnAttributes& operator=(const SpawnAttributes&) = delete;
    ~SpawnAttributes() { ::posix_spawnattr_destroy(&attributes_); }

    [[nodiscard]] const posix_spawnattr_t* get() const noexcept { return &attributes_; }

  private:
    posix_spawnattr_t attributes_{};
};

// Returns an errno.
int spawn(const HookProgram& program, int input, int output, pid_t& pid) {
    SpawnActions actions;
    ::posix_spawn_file_actions_adddup2(actions.get(), input, STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(actions.get(), output, STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(actions.get(), output, STDERR_FILENO);
    // Libraries open descriptors that are not closed by themselves.
    ::posix_spawn_file_actions_addclosefrom_np(actions.get(), STDERR_FILENO + 1);
    const SpawnAttributes attributes;
    std::string path = program.path;
    std::vector<std::string> words = program.arguments;
    std::vector<char*> pointers = {path.data()};
    for (std::string& word : words) {
        pointers.push_back(word.data());
    }
    pointers.push_back(nullptr);
    return ::posix_spawn(&pid, path.c_str(), actions.get(), attributes.get(), pointers.data(),
                         environ);
}

// A process that is this one's child and leads a group, and its output.
class HookProcess {
  public:
    HookProcess(pid_t pid, UniqueFd output, Lines& lines)
        : pid_(pid),
          output_(std::move(output)),
          lines_(lines),
          pid_fd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}
    HookProcess(const HookProcess&) = delete;
    HookProcess& operator=(const HookProcess&) = delete;
    ~HookProcess() {
        if (!waited_for_) {  // what stands still in the kernel stays behind, and init takes it
            ::waitpid(pid_, nullptr, WNOHANG);
        }
    }

    enum class End { exited, late, unwanted };
    // Passes on its output meanwhile.
    [[nodiscard]] End wait(milliseconds limit, const std::function<bool()>& unwanted) {
        const Clock::time_point deadline = Clock::now() + limit;
        for (;;) {
            const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
            if (left.count() <= 0) {
                return End::late;
            }
            if (unwanted()) {
                return End::unwanted;
            }
            std::array<pollfd, 2> fds = {pollfd{pid_fd_.get(), POLLIN, 0},
                                         pollfd{output_.get(), POLLIN, 0}};
            if (::poll(fds.data(), fds.size(), static_cast<int>(std::min(kStep, left).count())) <=
                0) {
                continue;
            }
            if (fds[1].revents != 0) {
                read(buffer_.size());
            }
            if (fds[0].revents != 0) {
                read_rest();
                return End::exited;
            }
        }
    }

    void end_group(milliseconds grace) {
        const auto never = [] { return false; };
        // Its id is taken as long as its leader has not been waited for.
        ::kill(-pid_, SIGTERM);
        const bool gone = wait(grace, never) == End::exited;
        ::kill(-pid_, SIGKILL);
        if (!gone) {
            (void)wait(grace, never);
        }
    }

    // Once it has exited: how, if not with status 0.
    [[nodiscard]] std::string failure() {
        waited_for_ = true;
        int status = 0;
        if (::waitpid(pid_, &status, 0) != pid_) {
            return "its exit status is not known: " + error_text(errno);
        }
        if (WIFSIGNALED(status)) {
            const int signal = WTERMSIG(status);
            const char* name = ::sigdescr_np(signal);
            return "ended by signal " + std::to_string(signal) +
                   (name == nullptr ? "" : std::string(" (") + name + ")");
        }
        const int code = WEXITSTATUS(status);
        return code == 0 ? "" : "exit status " + std::to_string(code);
    }

    [[nodiscard]] bool watched() const noexcept { return pid_fd_.valid(); }

  private:
    void read(std::size_t most) {
        const ssize_t got = ::read(output_.get(), buffer_.data(), std::min(most, buffer_.size()));
        if (got > 0) {
            lines_.add({buffer_.data(), static_cast<std::size_t>(got)});
        } else if (got == 0) {
            output_.reset();
        }
    }

    // What it has written itself; another process that has the pipe may go on writing.
    void read_rest() {
        int rest = 0;
        if (!output_.valid() || ::ioctl(output_.get(), FIONREAD, &rest) != 0) {
            return;
        }
        for (; rest > 0 && output_.valid(); rest -= static_cast<int>(buffer_.size())) {
            read(static_cast<std::size_t>(rest));
        }
    }

    const pid_t pid_;
    UniqueFd output_;
    Lines& lines_;
    const UniqueFd pid_fd_;
    bool waited_for_ = false;
    std::array<char, 64 << 10> buffer_{};
};

}  // namespace

HookResult run_hook(const HookProgram& program, const std::function<void(std::string_view)>& say,
                    const std::function<bool()>& unwanted) {
    const UniqueFd input = file_with(program.input);
    std::array<int, 2> ends{};
    check_errno(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), "cannot make a pipe");
    UniqueFd output(ends[0]);
    UniqueFd output_of_hook(ends[1]);
    // It is the hook's, and hooks expect that writes wait.
    check_errno(::fcntl(output_of_hook.get(), F_SETFL, 0), "cannot make a pipe");
    pid_t pid = -1;
    if (const int error = spawn(program, input.get(), output_of_hook.get(), pid); error != 0) {
        return {.failure = "cannot be started: " + error_text(error), .last_line = {}};
    }
    output_of_hook.reset();
    Lines lines(say);
    HookProcess process(pid, std::move(output), lines);
    HookResult result;
    if (!process.watched()) {
        process.end_group(program.grace);
        throw errno_error(EMFILE, "cannot watch '" + program.path + "'");
    }
    using End = HookProcess::End;
    switch (process.wait(program.timeout, unwanted)) {
        case End::exited:
            result.failure = process.failure();
            break;
        case End::late:
            process.end_group(program.grace);
            result.failure =
                "late: not done within " + std::to_string(program.timeout.count() / 1000) + " s";
            break;
        case End::unwanted:
            process.end_group(program.grace);
            result.failure = "not wanted any more";
            break;
    }
    result.last_line = lines.finish();
    return result;
}

}  // namespace nbdm
