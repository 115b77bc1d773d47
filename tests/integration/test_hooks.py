# SPDX-License-Identifier: Apache-2.0
"""The hooks of a mirror: when they are called and with what, which of them may refuse, and that
nothing else they do matters to the job."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from harness import CLIENT, MIB, ROOT, background, content, make_disk, same_content, wait_for
from nbd_client import write


TO_READY = ["prepare begin -", "prepare end ok", "copy begin -", "copy end ok", "catch_up begin -",
            "catch_up end ok", "ready begin -"]
CUT_OVER = ["ready end ok", "cutover begin -", "cutover end ok", "done end ok"]


class Hooks:
    """A directory of hooks: one that writes down how it was called, and what a test adds."""

    def __init__(self, world):
        self.world = world
        self.directory = world.path("hooks")
        self.directory.mkdir()
        self.record = world.path("calls")
        self.gate = world.path("gate")
        self.add("50-recorder", f"{{ printf '%s\\t' \"$*\"; tr -d '\\n'; echo; }} >> {self.record}")

    def add(self, name, body, mode=0o755):
        path = self.directory / name
        path.write_text("#!/bin/sh\n" + body + "\n")
        path.chmod(mode)
        return path

    def add_at(self, when, body, name="60-special"):
        """A hook that does this at one moment only, once it was recorded."""
        self.add(name, f'[ "$2 $3" != "{when}" ] || {{ {body}; }}')

    def add_gate(self, when):
        """A hook that waits there, once it was recorded, until open() is called."""
        os.mkfifo(self.gate)
        self.add_at(when, f"touch {self.gate}-reached; read line < {self.gate}", name="60-gate")

    def wait_at_gate(self):
        wait_for(self.gate.with_name("gate-reached").exists, what="a hook at the gate")

    def open(self):
        with open(self.gate, "w", encoding="utf-8") as gate:
            gate.write("go\n")

    def records(self):
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [line.split("\t") for line in lines]

    def calls(self):
        """STEP begin|end STATUS of each call."""
        return [words.removeprefix("job ") for words, _ in self.records()]

    def statuses(self):
        return [json.loads(status) for _, status in self.records()]

    def wait_for(self, call, count=1):
        wait_for(lambda: self.calls().count(call) >= count, what=call)


@pytest.fixture
def hooks(world):
    return Hooks(world)


@pytest.fixture
def pair(world):
    with world.pair(16 * MIB + 512, [(0, 6 * MIB)]) as both:
        yield both


def begin(world, hooks, pair, *options, expect=(0,)):
    source, target = pair
    return world.mirror(source.source("d"), target.uri("d"), "--hooks", hooks.directory, *options,
                        expect=expect)


def connections(server):
    return server.ask("GET", "/v1/connections")[1]["connections"]


def generation(server):
    return server.export("d")["trackers"][0]["generation"]


def test_every_step_is_told_in_order_with_the_status_of_its_moment(world, hooks, pair):
    with begin(world, hooks, pair) as mirror:
        mirror.wait_for_phase("ready")
        hooks.wait_for("ready begin -")
        assert hooks.calls() == TO_READY
        assert mirror.cutover().returncode == 0
        assert mirror.wait() == 0
    assert hooks.calls() == TO_READY + CUT_OVER
    assert all(words.startswith("job ") for words, _ in hooks.records())
    assert [each["phase"] for each in hooks.statuses()] == [
        "preparing", "copying", "copying", "catching_up", "catching_up", "ready", "ready",
        # Whoever lets the cutover begin is asked before the writers are held.
        "ready", "ready", "done", "done"]
    last = hooks.statuses()[-1]
    assert last["job"] == "job" and last["downtime_ms"] is not None and last["error"] is None
    assert last["disks"][0]["source"] == pair[0].source("d")
    assert last.keys() == json.loads(world.client("status", "job", "--json").stdout).keys()


def test_hooks_are_called_in_the_order_of_their_names_and_some_files_are_not(world, hooks, pair):
    said = world.path("said")
    for name in ("9-nine", "10-ten", "a", "B"):
        hooks.add(name, f"echo {name} >> {said}")
    hooks.add("30-not-executable", f"echo wrong >> {said}", mode=0o644)
    hooks.add("40-dot.sh", f"echo wrong >> {said}")
    hooks.add("a~", f"echo wrong >> {said}")
    with begin(world, hooks, pair, "--cutover", "auto") as mirror:
        assert mirror.wait() == 0
    names = said.read_text().split()
    assert names == ["10-ten", "9-nine", "B", "a"] * len(TO_READY + CUT_OVER)
    warnings = [line for line in mirror.messages().splitlines() if "is not called" in line]
    assert len(warnings) == 3
    assert "'30-not-executable' is not called: it is not executable" in warnings[0]
    assert "'40-dot.sh' is not called: its name" in warnings[1]


def test_a_directory_that_is_missing_is_refused_and_an_empty_one_is_not(world, pair):
    source, target = pair
    missing = world.path("missing")
    result = world.client("mirror", source.source("d"), target.uri("d"), "--hooks", missing)
    assert result.returncode == 1
    assert f"directory of hooks '{missing}': No such file or directory" in result.stderr
    assert not (world.quick("state") / "jobs").exists()
    result = world.client("mirror", source.source("d"), target.uri("d"), "--hooks", CLIENT)
    assert result.returncode == 1 and "Not a directory" in result.stderr
    assert source.export("d")["trackers"] == []
    missing.mkdir()
    result = world.client("mirror", source.source("d"), target.uri("d"), "--hooks", missing,
                          "--cutover", "auto")
    assert result.returncode == 0


def test_a_refusal_to_prepare_ends_the_job_before_anything_was_begun(world, hooks, pair):
    source, _ = pair
    hooks.add_at("prepare begin", "echo not today; exit 3", name="60-veto")
    target = world.path("created")
    with world.mirror(source.source("d"), target, "--create", "--hooks", hooks.directory,
                      expect=(1,)) as mirror:
        assert mirror.wait() == 1
    sentence = "refused by hook '60-veto' at prepare begin: exit status 3: not today"
    said, error = mirror.messages().splitlines()
    assert said == "hook 60-veto: not today"
    assert error == f"nbd-mirror: {sentence}"
    assert hooks.calls() == ["prepare begin -", "prepare end failed", "failed end failed"]
    assert not target.exists()
    assert source.export("d")["trackers"] == []
    assert [each.name for each in world.quick("state").rglob("*") if each.is_file()] == ["job.json"]
    status = json.loads(world.client("status", "job", "--json").stdout)
    assert (status["phase"], status["error"]) == ("failed", sentence)


def test_a_refused_cutover_leaves_the_job_ready_and_may_be_asked_for_again(world, hooks, pair):
    source, _ = pair
    allowed = world.path("allowed")
    hooks.add_at("cutover begin", f"[ -e {allowed} ] || {{ echo guest is busy; exit 7; }}",
                 name="60-veto")
    with begin(world, hooks, pair) as mirror:
        mirror.wait_for_phase("ready")
        result = mirror.cutover()
        sentence = ("not cut over: refused by hook '60-veto' at cutover begin: exit status 7: "
                    "guest is busy")
        assert result.returncode == 1 and result.stderr == f"nbd-mirror: {sentence}\n"
        status = mirror.status()
        assert (status["phase"], status["error"]) == ("ready", sentence)
        # Nobody was held, and what is written is still copied.
        assert source.export("d")["state"] == "serving"
        write(source, 12 * MIB, b"n" * MIB)
        wait_for(lambda: content(world.path("target"), 12 * MIB, MIB) == b"n" * MIB)
        allowed.touch()
        assert mirror.cutover().returncode == 0
        assert mirror.wait() == 0
    before = ["ready end ok", "cutover begin -", "cutover end failed"]
    calls = hooks.calls()
    assert calls[:len(TO_READY) + 4] == TO_READY + before + ["ready begin -"]
    assert calls[-4:] == CUT_OVER
    assert same_content(world.path("source"), world.path("target"))


def test_cutover_auto_asks_again_after_a_refusal(world, hooks, pair):
    hooks.add_at("cutover begin", "[ $(grep -c 'cutover begin' %s) -ge 2 ]" % hooks.record)
    with begin(world, hooks, pair, "--cutover", "auto") as mirror:
        assert mirror.wait() == 0
    assert hooks.calls().count("cutover end failed") == 1
    assert hooks.calls()[-4:] == CUT_OVER


def test_a_late_hook_refuses_a_cutover_and_is_ended_with_its_children(world, hooks, pair):
    fifo = world.path("fifo")
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    hooks.add_at("cutover begin",
                 f"exec 3> {fifo}; trap '' TERM; sleep 1000 & echo waiting; sleep 1000; wait")
    with begin(world, hooks, pair, "--hook-timeout", "1", expect=(4,)) as mirror:
        mirror.wait_for_phase("ready")
        result = mirror.cutover()
        assert result.returncode == 1
        assert "'60-special' at cutover begin: late: not done within 1 s: waiting" in result.stderr
        assert mirror.phase() == "ready"
        # All that had the fifo open are gone.
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize("moment", ["copy begin", "done end"])
def test_a_late_hook_elsewhere_is_a_warning(world, hooks, pair, moment):
    hooks.add_at(moment, "exec sleep 1000")
    with begin(world, hooks, pair, "--hook-timeout", "1", "--cutover", "auto") as mirror:
        assert mirror.wait() == 0
    assert hooks.calls() == TO_READY + CUT_OVER
    assert (f"warning: hook '60-special' at {moment}: late: not done within 1 s"
            in mirror.messages())


def test_hooks_that_fail_elsewhere_change_nothing(world, hooks, pair):
    hooks.add("10-fails", 'case "$2 $3" in "prepare begin"|"cutover begin") ;; *) exit 9;; esac')
    with begin(world, hooks, pair, "--cutover", "auto") as mirror:
        assert mirror.wait() == 0
    assert hooks.calls() == TO_READY + CUT_OVER
    mirror.wait_for_message("warning: hook '10-fails' at done end: exit status 9")


def test_a_hook_that_says_much_fills_neither_the_log_nor_holds_up_the_job(world, hooks, pair):
    hooks.add("10-much", "yes | head -c 3000000; echo last")
    with begin(world, hooks, pair, "--cutover", "auto") as mirror:
        assert mirror.wait() == 0
    assert hooks.calls() == TO_READY + CUT_OVER
    assert mirror.messages().count("more lines are left out") == len(TO_READY + CUT_OVER)
    assert len(mirror.messages()) < 400_000


def test_what_a_hook_leaves_running_with_its_output_open_is_not_waited_for(world, hooks, pair):
    pids = world.path("pids")
    hooks.add("10-leaves", f"sleep 1000 & echo $! >> {pids}")
    try:
        with begin(world, hooks, pair, "--cutover", "auto") as mirror:
            assert mirror.wait() == 0
        assert hooks.calls() == TO_READY + CUT_OVER
        assert "warning" not in mirror.messages()
    finally:
        left = [int(pid) for pid in pids.read_text().split()]
        for pid in left:
            os.kill(pid, signal.SIGKILL)  # fails if it was not left alone
    assert len(left) == len(TO_READY + CUT_OVER)


def test_copying_does_not_wait_for_hooks(world, hooks, pair):
    hooks.add_gate("prepare end")
    with begin(world, hooks, pair) as mirror:
        mirror.wait_for_phase("ready")
        assert same_content(world.path("source"), world.path("target"))
        # The cutover does: its hooks are not asked before the others were told.
        with background(mirror.cutover) as asked:
            before = generation(pair[0])
            wait_for(lambda: generation(pair[0]) > before + 5)
            assert hooks.calls() == ["prepare begin -", "prepare end ok"]
            hooks.open()
        assert asked.result.returncode == 0
        assert mirror.wait() == 0
    assert hooks.calls() == TO_READY + CUT_OVER


def test_copying_goes_on_while_the_hooks_of_the_cutover_are_waited_for(world, hooks, pair):
    source, _ = pair
    hooks.add_gate("cutover begin")
    with begin(world, hooks, pair) as mirror:
        mirror.wait_for_phase("ready")
        with background(mirror.cutover) as asked:
            hooks.wait_at_gate()
            write(source, 12 * MIB, b"n" * MIB)
            wait_for(lambda: content(world.path("target"), 12 * MIB, MIB) == b"n" * MIB)
            assert mirror.phase() == "ready" and source.export("d")["state"] == "serving"
            hooks.open()
        assert asked.result.returncode == 0
        assert mirror.wait() == 0
    assert hooks.calls() == TO_READY + CUT_OVER


def test_much_that_is_written_while_the_hooks_of_the_cutover_run_does_not_end_that(world, hooks, pair):
    source, _ = pair
    hooks.add_gate("cutover begin")
    with begin(world, hooks, pair, "--max-downtime", "1000") as mirror:
        mirror.wait_for_phase("ready")
        # A round that takes a minute, as long as that is the limit.
        assert world.client("set", "job", "--bwlimit", "256K").returncode == 0
        with background(mirror.cutover) as cutover:
            hooks.wait_at_gate()
            for part in range(8):
                write(source, part * MIB, b"n" * MIB)
            wait_for(lambda: mirror.status()["expected_downtime_ms"] > 10_000)
            time.sleep(2.5)  # longer than a ready job may be behind
            assert mirror.phase() == "ready"
            assert world.client("set", "job", "--bwlimit", "off", "--max-downtime",
                                "20000").returncode == 0
            hooks.open()
        assert cutover.result.returncode == 0, cutover.result.stderr
        mirror.wait()
    assert hooks.calls() == TO_READY + CUT_OVER
    assert same_content(world.path("source"), world.path("target"))


def test_a_cutover_that_is_taken_back_while_its_hooks_run_does_not_happen(world, hooks, pair):
    source, _ = pair
    hooks.add_gate("cutover begin")
    with begin(world, hooks, pair, expect=(4,)) as mirror:
        mirror.wait_for_phase("ready")
        asker = subprocess.Popen([CLIENT, "cutover", "job"], env=world.env,
                                 stderr=subprocess.DEVNULL)
        hooks.wait_at_gate()
        asker.kill()
        asker.wait()
        assert mirror.phase() == "ready"  # the loop has seen that before this
        hooks.open()
        hooks.wait_for("ready begin -", 2)
        assert hooks.calls() == TO_READY + ["ready end ok", "cutover begin -", "cutover end failed",
                                            "ready begin -"]
        assert source.export("d")["state"] == "serving"


def test_a_job_that_is_paused_while_the_hooks_of_its_cutover_run_is_not_cut_over(world, hooks, pair):
    source, _ = pair
    hooks.add_gate("cutover begin")
    with begin(world, hooks, pair) as mirror:
        mirror.wait_for_phase("ready")
        with background(mirror.cutover) as asked:
            hooks.wait_at_gate()
            assert world.client("pause", "job").returncode == 0
            hooks.open()
            hooks.wait_for("cutover end failed")
            assert source.export("d")["state"] == "serving" and mirror.running()
            assert world.client("resume", "job").returncode == 0
            hooks.wait_for("cutover begin -", 2)
            hooks.open()
        assert asked.result.returncode == 0
        assert mirror.wait() == 0


@pytest.mark.parametrize("how", ["command", "signal"])
def test_a_cancellation_does_not_wait_for_the_hook_that_is_waited_for(world, hooks, pair, how):
    source, _ = pair
    hooks.add_at("cutover begin", "echo here; exec sleep 1000")
    with begin(world, hooks, pair, "--hook-timeout", "600", expect=(4,)) as mirror:
        mirror.wait_for_phase("ready")
        with background(mirror.cutover) as asked:
            wait_for(lambda: "hook 60-special: here" in mirror.messages())
            if how == "command":
                assert world.client("cancel", "job").returncode == 0
            else:
                os.kill(mirror.pid, signal.SIGTERM)
            assert mirror.wait(limit=20) == 4
        assert asked.result.returncode == 1 and "cancelled" in asked.result.stderr
    assert hooks.calls() == TO_READY + ["ready end ok", "cutover begin -", "cutover end cancelled",
                                        "cancelled end cancelled"]
    assert source.export("d")["state"] == "serving" and source.export("d")["trackers"] == []


def test_a_cancellation_while_the_hooks_prepare_begins_nothing(world, hooks, pair):
    source, _ = pair
    hooks.add_at("prepare begin", "echo here; exec sleep 1000")
    with begin(world, hooks, pair, expect=(4,)) as mirror:
        wait_for(lambda: "hook 60-special: here" in mirror.messages())
        os.kill(mirror.pid, signal.SIGINT)
        assert mirror.wait(limit=20) == 4
    assert hooks.calls() == ["prepare begin -", "prepare end cancelled", "cancelled end cancelled"]
    assert source.export("d")["trackers"] == [] and connections(source) == []


def test_a_second_signal_ends_the_wait_for_the_hooks_of_a_cancelled_job(world, hooks, pair):
    hooks.add_gate("cancelled end")
    with begin(world, hooks, pair, "--hook-timeout", "600", expect=(4,)) as mirror:
        mirror.wait_for_phase("ready")
        os.kill(mirror.pid, signal.SIGINT)
        hooks.wait_at_gate()
        assert mirror.running() and mirror.phase() == "cancelled"
        os.kill(mirror.pid, signal.SIGINT)
        assert mirror.wait(limit=20) == 4
    hooks.open()  # nobody has ended it


def test_the_hooks_of_the_end_are_run_whatever_comes_and_find_the_target_free(world, hooks, pair):
    _, target = pair
    hooks.add_gate("done end")
    hooks.add("70-behind", f"echo $2 $3 $4 > {world.path('behind')}")
    with begin(world, hooks, pair) as mirror:
        mirror.wait_for_phase("ready")
        # It is told of the hand-over, not of what the hooks make of it.
        assert mirror.cutover().returncode == 0
        hooks.wait_at_gate()
        assert connections(target) == []
        for _ in range(2):
            os.kill(mirror.pid, signal.SIGTERM)
        assert mirror.phase() == "done"  # the loop has seen both
        assert world.path("behind").read_text() == "cutover end ok\n"
        hooks.open()
        assert mirror.wait() == 0
        assert "cut over: downtime" in mirror.output
    assert world.path("behind").read_text() == "done end ok\n"


def test_a_job_that_fails_tells_its_hooks_why(world, hooks, pair):
    _, target = pair
    with begin(world, hooks, pair, "--reconnect-timeout", "1", expect=(1,)) as mirror:
        mirror.wait_for_phase("ready")
        target.kill()
        assert mirror.wait() == 1
    assert hooks.calls() == TO_READY + ["ready end failed", "catch_up begin -",
                                        "catch_up end failed", "failed end failed"]
    first, *_, last = hooks.statuses()[len(TO_READY):]
    assert "trying again" in first["error"]
    assert last["phase"] == "failed" and "--resume" in last["error"]


def test_a_job_that_cannot_be_prepared_tells_its_hooks(world, hooks, pair):
    source, _ = pair
    small = make_disk(world.path("small"), MIB)
    result = world.client("mirror", source.source("d"), small, "--job", "job", "--hooks",
                          hooks.directory)
    assert result.returncode == 1 and "too small" in result.stderr
    assert hooks.calls() == ["prepare begin -", "prepare end failed", "failed end failed"]
    assert "too small" in hooks.statuses()[1]["error"]


def test_a_job_whose_name_is_taken_calls_no_hook(world, hooks, pair):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d"), expect=(4,)) as mirror:
        mirror.wait_for_phase("ready")
        with world.mirror(source.source("d"), target.uri("d"), "--hooks", hooks.directory,
                          expect=(1,)) as second:
            assert second.wait() == 1
        second.wait_for_message("runs already")
        assert hooks.calls() == []


def test_a_resumed_job_tells_its_hooks_from_the_beginning(world, hooks, pair):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    with world.mirror(None, None, "--resume", "--hooks", hooks.directory) as mirror:
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 0
        assert mirror.wait() == 0
    assert hooks.calls() == TO_READY + CUT_OVER


def test_a_resumed_job_that_had_handed_over_tells_its_hooks_that_it_is_done(world, hooks, pair):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        os.kill(mirror.pid, signal.SIGSTOP)  # as if it had died between the retire and its answer
        hold = source.hold()
        assert source.ask("POST", "/v1/exports/d/retire",
                          {"hold": hold, "moved_to": "there", "job": "job"})[0] == 200
        mirror.kill()
    with world.mirror(None, None, "--resume", "--hooks", hooks.directory) as mirror:
        assert mirror.wait() == 0
    assert hooks.calls() == ["prepare begin -", "prepare end ok", "done end ok"]


def test_a_refusal_to_resume_can_be_resumed_later(world, hooks, pair):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    hooks.add_at("prepare begin", "exit 1")
    with world.mirror(None, None, "--resume", "--hooks", hooks.directory, expect=(1,)) as mirror:
        assert mirror.wait() == 1
    with world.mirror(None, None, "--resume", "--cutover", "auto") as mirror:
        assert mirror.wait() == 0


@pytest.mark.parametrize("resumes", [True, False])
def test_who_is_cancelled_before_it_begins_leaves_an_earlier_job_to_be_resumed(world, hooks, pair, resumes):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    hooks.add_at("prepare begin", "echo here; exec sleep 1000")
    sides = [None, None, "--resume"] if resumes else [source.source("d"), target.uri("d")]
    with world.mirror(*sides, "--hooks", hooks.directory, expect=(4,)) as mirror:
        wait_for(lambda: "hook 60-special: here" in mirror.messages())
        os.kill(mirror.pid, signal.SIGINT)
        assert mirror.wait(limit=20) == 4
    with world.mirror(None, None, "--resume", "--cutover", "auto") as mirror:
        assert mirror.wait() == 0
    assert "are compared" not in mirror.messages()


def test_the_example_of_the_manual_moves_a_guest(world, hooks, pair):
    page = (ROOT / "man" / "nbd-mirror.1").read_text()
    section = re.search(r"^\.Sh HOOKS\n(.*?)^\.Sh", page, re.MULTILINE | re.DOTALL).group(1)
    script = re.search(r"^\.Bd.*?\n(.*?)^\.Ed", section, re.MULTILINE | re.DOTALL).group(1)
    path = hooks.directory / "10-guest"
    path.write_text(script)
    path.chmod(0o755)
    commands = world.path("commands")
    programs = world.path("bin")
    programs.mkdir()
    for name in ("virsh", "ssh"):
        program = programs / name
        program.write_text(f"#!/bin/sh\necho {name} $* >> {commands}\necho shut off\n")
        program.chmod(0o755)
    world.env["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    hooks.add_at("cutover begin", "[ $(grep -c 'cutover begin' %s) -ge 2 ]" % hooks.record)
    with begin(world, hooks, pair) as mirror:
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 1
        assert mirror.cutover().returncode == 0
        assert mirror.wait() == 0
    down = ["virsh shutdown job", "virsh domstate job"]
    assert commands.read_text().splitlines() == (
        down + ["virsh start job"] + down + ["ssh new-host virsh start job"])
