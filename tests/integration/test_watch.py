# SPDX-License-Identifier: Apache-2.0
"""`status --watch`: what an operator sees of running jobs, at a terminal and elsewhere."""

import contextlib
import json
import os
import re
import signal
import subprocess
import termios
import time

import pytest

from harness import CLIENT, MIB, make_disk, wait_for
from screen import TerminalSession

SIZE = 64 * MIB


@pytest.fixture
def pair(world):
    """Half of the source is a hole."""
    with world.pair(SIZE, [(0, SIZE // 2)]) as both:
        yield both


def slow_mirror(world, pair, *options, job="job"):
    """It stays in the phase copying."""
    a, b = pair
    return world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "256K", *options, job=job,
                        expect=(0, 4))


def environment(world, **more):
    """Without what the terminal of whoever runs the tests is like."""
    env = {name: value for name, value in world.env.items()
           if name not in ("NO_COLOR", "COLORTERM", "TERM", "LANG", "LC_ALL", "LC_CTYPE")}
    return dict(env, **more)


def watch(world, *arguments, size=(80, 24), **env):
    return TerminalSession([CLIENT, "status", *arguments, "--watch"], environment(world, **env),
                           *size)


def lines_of(world, *arguments, **env):
    return subprocess.Popen([CLIENT, "status", *arguments, "--watch"], stdin=subprocess.DEVNULL,
                            env=environment(world, **{"LC_ALL": "C.UTF-8", "TERM": "xterm"} | env),
                            stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def ended_by_cancel(world, mirror):
    with mirror:
        wait_for(lambda: (mirror.status() or {}).get("phase") == "copying")
        yield mirror
        if mirror.running():
            world.client("cancel", mirror.job)
        mirror.wait()


def test_the_page_shows_the_job_and_fits_the_terminal(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)), watch(world, "job") as terminal:
        terminal.wait_for_text("COPYING", "job", "MiB of", "░░░", "···", "copy rate", "downtime",
                               "20.0 s allowed", "limit 256.0 KiB/s", "writers not throttled",
                               "4 connections", "q leaves", "catching up ──")
        terminal.wait_for_text("█ moved")
        assert terminal.screen.overflows == 0 and terminal.screen.alternate
        assert not terminal.screen.cursor_shown
        assert terminal.screen.styles > {"0"}
        for size, parts in (((40, 10), ("COPYING", "downtime", "MiB")),
                            ((120, 40), ("catching up ──", "░░░", "limits")),
                            ((20, 4), ("COPYING",)), ((80, 24), ("limits", "q leaves"))):
            terminal.resize(*size)
            terminal.wait_for_text(*parts)
            assert terminal.screen.overflows == 0, size


def test_a_small_terminal_from_the_start(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)), \
            watch(world, "job", size=(40, 10)) as terminal:
        terminal.wait_for_text("COPYING", "job", "downtime", "░░░")
        assert terminal.screen.overflows == 0


def test_no_color_is_honoured(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)), \
            watch(world, "job", NO_COLOR="1") as terminal:
        terminal.wait_for_text("[COPYING]", "░░░")
        assert terminal.screen.styles == set()


def test_a_locale_without_utf8_gets_ascii(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)), \
            watch(world, "job", LC_ALL="C") as terminal:
        terminal.wait_for_text("COPYING", "----", "....")
        assert terminal.screen.text().isascii()


def test_a_dumb_terminal_gets_plain_lines(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)), \
            watch(world, "job", TERM="dumb", size=(400, 24)) as terminal:
        terminal.wait_until(lambda: terminal.screen.text().count("job: copying, ") >= 2, "two lines")
        assert terminal.screen.styles == set() and terminal.screen.erased == 0
        assert not terminal.screen.alternate and terminal.modes() == terminal.modes_before


def test_a_pipe_gets_plain_lines_until_the_job_ends(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        lines = lines_of(world, "job")
        first = lines.stdout.readline()
        assert re.fullmatch(r"job: ready, 100 %, 64\.0 MiB of 64\.0 MiB, 0 B dirty.*\n", first)
        assert mirror.cutover().returncode == 0
        rest = lines.communicate(timeout=60)[0].splitlines()
        assert rest[-1].startswith("job: done, 100 %") and "downtime" in rest[-1]
        assert all(line.isascii() and line.isprintable() for line in [first.strip(), *rest])
        assert lines.returncode == 0


def test_nobody_watches_a_pipe_that_is_not_read(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)):
        lines = lines_of(world, "job", "--json")
        assert json.loads(lines.stdout.readline())["job"] == "job"
        lines.stdout.close()
        assert lines.wait(30) == 0


def test_json_is_a_line_for_each_job_a_second(world, pair):
    a, b = pair
    other = make_disk(world.path("other"), MIB, [(0, MIB)])
    with world.server(f"e={other}", name="other-server") as c, \
            world.mirror(c.source("e"), world.path("copy"), "--create", job="quick") as quick, \
            ended_by_cancel(world, slow_mirror(world, pair)):
        quick.wait_for_phase("ready")
        lines = lines_of(world, "--json")
        began = time.monotonic()
        read = [json.loads(lines.stdout.readline()) for _ in range(6)]
        assert time.monotonic() - began > 1.5
        assert [each["job"] for each in read] == ["job", "quick"] * 3
        assert {"phase", "disks", "eta_s", "throttle", "error"} < set(read[0])
        assert quick.cutover().returncode == 0
        quick.wait()
        assert world.client("cancel", "job").returncode == 0
        read = [json.loads(line) for line in lines.communicate(timeout=60)[0].splitlines()]
        # The last state of a job that is over is said once.
        assert [each["phase"] for each in read if each["job"] == "quick"].count("done") == 1
        assert [each for each in read if each["job"] == "job"][-1]["phase"] == "cancelled"


@pytest.mark.parametrize("leave, status", [
    (lambda terminal: terminal.type("q"), 0),
    (lambda terminal: terminal.type("\x03"), 0),
    (lambda terminal: terminal.process.send_signal(signal.SIGTERM), -signal.SIGTERM),
    (lambda terminal: terminal.process.send_signal(signal.SIGHUP), -signal.SIGHUP),
], ids=["q", "ctrl-c", "sigterm", "sighup"])
def test_whoever_leaves_finds_the_terminal_as_it_was(world, pair, leave, status):
    with ended_by_cancel(world, slow_mirror(world, pair)) as mirror, \
            watch(world, "job") as terminal:
        terminal.wait_for_text("COPYING")
        assert terminal.modes() != terminal.modes_before
        leave(terminal)
        assert terminal.wait() == status
        assert terminal.is_restored()
        assert terminal.screen.text().strip() == ""
        assert mirror.running()


def test_the_end_of_a_job_stays_to_be_read(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        with watch(world, "job") as terminal:
            terminal.wait_for_text("READY", "nbd-mirror cutover job", "expected")
            assert mirror.cutover().returncode == 0
            assert terminal.wait() == 0
            assert terminal.is_restored() and terminal.screen.overflows == 0
            for part in ("DONE", "100 %", "The disk was handed over."):
                assert part in terminal.screen.text()
        mirror.wait()


def test_a_job_that_is_killed_is_seen_to_have_failed(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)) as mirror, \
            watch(world, "job") as terminal:
        terminal.wait_for_text("COPYING")
        mirror.kill()
        assert terminal.wait() == 0
        assert terminal.is_restored() and terminal.screen.overflows == 0
        assert "FAILED" in terminal.screen.text()
        assert "the mirror process ended while copying" in " ".join(terminal.screen.text().split())


def test_a_job_that_does_not_answer_is_not_shown_as_if_it_did(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)) as mirror, \
            watch(world, "job") as terminal:
        terminal.wait_for_text("COPYING")
        mirror.process.send_signal(signal.SIGSTOP)
        terminal.wait_for_text("NO ANSWER", "while copying", "no answer from the job for")
        mirror.process.send_signal(signal.SIGCONT)
        terminal.wait_until(lambda: "NO ANSWER" not in terminal.screen.text(), "an answer")
        terminal.wait_for_text("COPYING")


def test_it_is_stopped_and_goes_on_as_a_shell_tells_it(world, pair):
    env = environment(world, TERM="xterm-256color", LC_ALL="C.UTF-8", PS1="shell> ", ENV="")
    with ended_by_cancel(world, slow_mirror(world, pair)), \
            TerminalSession(["/bin/dash", "-i"], env) as terminal:
        terminal.wait_for_text("shell>")
        before = terminal.modes()
        terminal.type(f"{CLIENT} status job --watch\r")
        terminal.wait_for_text("COPYING")
        terminal.type("\x1a")
        terminal.wait_until(lambda: not terminal.screen.alternate, "the shell's screen")
        terminal.wait_until(lambda: terminal.modes() == before, "the shell's modes")
        terminal.wait_until(lambda: terminal.screen.text().count("shell>") == 2, "a prompt")
        assert terminal.screen.cursor_shown
        terminal.type("fg\r")
        terminal.wait_until(lambda: terminal.screen.alternate, "its own screen")
        terminal.wait_for_text("COPYING")
        terminal.type("q")
        terminal.wait_until(lambda: terminal.screen.text().count("shell>") == 3, "a prompt")
        assert terminal.modes() == before and terminal.screen.cursor_shown
        assert not terminal.screen.alternate


def test_a_terminal_that_takes_nothing_does_not_hold_up_the_end(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)), watch(world, "job") as terminal:
        terminal.wait_for_text("COPYING")
        termios.tcflow(terminal.slave, termios.TCOOFF)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(30) == -signal.SIGTERM
        assert terminal.modes() == terminal.modes_before


def test_a_terminal_that_is_gone_ends_it(world, pair):
    with ended_by_cancel(world, slow_mirror(world, pair)), watch(world, "job") as terminal:
        terminal.wait_for_text("COPYING")
        os.close(terminal.master)
        assert terminal.process.wait(30) == -signal.SIGHUP


def test_names_with_escape_characters_do_not_reach_the_terminal(world, pair):
    """The screen fails at any sequence that is not the page's own."""
    a, _ = pair
    target = world.path("x\x1b]0;owned\x07\x1b[31m\r\u202e.img")
    with ended_by_cancel(world, world.mirror(a.source("d"), target, "--create", "--bwlimit", "256K",
                                             expect=(4,))), \
            watch(world, "job", size=(200, 24)) as terminal:
        terminal.wait_for_text("x?]0;owned??[31m??.img")
        line = lines_of(world, "job", TERM="dumb")
        assert line.stdout.readline().rstrip("\n").isprintable()
        line.kill()
        line.communicate()


def test_several_jobs_are_a_list_with_one_of_them_below(world, pair):
    other = make_disk(world.path("other"), SIZE, [(0, SIZE)])
    with world.server(f"e={other}", name="other-server") as c, \
            ended_by_cancel(world, slow_mirror(world, pair, job="first")), \
            watch(world) as terminal:
        terminal.wait_for_text("COPYING", "first")
        # One that is started later is seen, too.
        with ended_by_cancel(world, world.mirror(c.source("e"), world.path("copy"), "--create",
                                                 "--bwlimit", "128K", job="second", expect=(4,))):
            terminal.wait_for_text("▶ first", "  second", "limit 256.0 KiB/s", "Tab")
            terminal.type("\t")
            terminal.wait_for_text("  first", "▶ second", "limit 128.0 KiB/s")
            terminal.resize(40, 10)
            terminal.wait_for_text("first", "second", "copying")
            assert terminal.screen.overflows == 0
            terminal.resize(80, 24)
        terminal.wait_for_text("cancelled")
        assert terminal.process.poll() is None


def test_there_must_be_something_to_watch(world):
    for arguments, line in (((), "no job is running"), (("vm1",), "there is no job 'vm1'")):
        with watch(world, *arguments) as terminal:
            assert terminal.wait() == 1
            assert terminal.is_restored()
            assert f"nbd-mirror: {line}" in terminal.screen.text()
    result = world.client("status", "vm1", "--watch", "--json")
    assert (result.returncode, result.stdout) == (1, "")
