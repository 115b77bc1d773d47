# SPDX-License-Identifier: Apache-2.0
"""Nobody reads what a program says: a terminal that Ctrl-S has stopped, a pager that waits for its
user, a journal that stands still. What the program is there for goes on."""

import contextlib
import json
import os
import signal
import termios

import pytest

import wire
from harness import CLIENT, MIB, Process, ask, make_disk, same_content, wait_for
from nbd_client import connect
from screen import TerminalSession

SIZE = 64 * MIB


class Reader:
    """A FIFO that is full, for a program to write to, and what comes out of it once it is read."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.text = b""
        for size in (4096, 1):  # whole pages, then the rest of the last one
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(self.fd, b"." * size)

    def read(self):
        """All that there is now, behind all that there was."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.text += os.read(self.fd, 65536)
        return self.text.lstrip(b".").decode()

    def wait_for(self, text):
        wait_for(lambda: text in self.read(), what=f"'{text}' is read")

    def close(self):
        os.close(self.fd)


@pytest.fixture
def reader(world):
    with contextlib.closing(Reader(world.quick("reader"))) as one:
        yield one


def into(reader, *descriptors):
    """What to put before a program that shall write to it."""
    redirections = " ".join(f"{each}>{reader.path}" for each in descriptors)
    return ["sh", "-c", f'exec "$@" {redirections}', "sh"]


def test_guests_and_operators_of_a_server_whose_log_nobody_reads_go_on(world, reader):
    disk = make_disk(world.path("disk"), MIB)
    name = b"n" * 4000  # 256 KiB of log in 64 refusals
    with world.server(f"d={disk}", before=into(reader, "2")) as server:
        guest = connect(server)
        for i in range(100):
            with wire.Wire(server) as stranger:
                stranger.ask(wire.INFO, wire.go_data(name))
        for i in range(16):
            guest.pwrite(bytes([i]) * 4096, 4096 * i)
        guest.flush()
        assert len(server.connections()) == 1
        server.release(server.hold())
        # Each line is whole, and where some are missing this is said.
        reader.wait_for(" lines were left out here")
        for line in reader.read().splitlines()[:-1]:
            assert "listening on" in line or "asked for export 'nnn" in line or "left out" in line \
                or "is connected" in line, line
        # What comes now is read.
        with wire.Wire(server) as stranger:
            stranger.ask(wire.INFO, wire.go_data(b"the last"))
        reader.wait_for("asked for export 'the last'")


def test_a_server_whose_log_nobody_reads_ends_when_told_to(world, reader):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}", before=into(reader, "2")) as server:
        guest = connect(server)
        guest.pwrite(b"a" * 4096, 0)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not server.control.exists())
        # It waits a moment for a reader, and is not killed by who is impatient.
        assert server.stop(limit=30) == 0
    assert reader.read() == ""


def run_mirror(world, pair, reader, *options, expect=(0,)):
    a, b = pair
    return Process([*into(reader, "1", "2"), CLIENT, "mirror", a.source("d"), b.uri("d"), "--job", "job",
                    "--progress", "json", "--max-downtime", "20000", *options],
                   world.env, world.quick("mirror.log"), expect)


def status(world):
    with contextlib.suppress(OSError):
        return ask(world.quick("run") / "jobs" / "job.sock", "GET", "/v1/job")[1]
    return None


def wait_for_phase(world, phase):
    wait_for(lambda: (status(world) or {}).get("phase") == phase, what=phase)


def test_a_mirror_whose_progress_nobody_reads_is_steered_and_hands_over(world, reader):
    with world.pair(SIZE, [(0, SIZE)]) as pair:
        with run_mirror(world, pair, reader) as mirror:
            wait_for_phase(world, "ready")
            assert world.client("pause", "job").returncode == 0
            assert status(world)["paused"] == "operator"
            assert world.client("resume", "job").returncode == 0
            cutover = world.client("cutover", "job")
            assert cutover.returncode == 0 and "downtime" in cutover.stdout
            # What it has said is there for whoever reads on, to its last line.
            assert mirror.running()
            reader.wait_for(cutover.stdout)
            assert mirror.wait() == 0
            lines = reader.read().splitlines()
            assert lines.pop() == cutover.stdout.strip()
            phases = [json.loads(line)["phase"] for line in lines]
            assert {"copying", "ready", "cutting_over"} <= set(phases) and phases[-1] == "done"
        assert same_content(world.path("source"), world.path("target"))


def test_a_job_that_is_over_waits_for_its_reader_until_a_signal(world, reader):
    with world.pair(SIZE, [(0, SIZE)]) as pair, \
            run_mirror(world, pair, reader, "--cutover", "auto") as mirror:
        wait_for(lambda: world.client("status", "job").stdout.startswith("job: done"))
        # Its name and its disks are free meanwhile.
        wait_for(lambda: status(world) is None)
        wait_for(lambda: pair[0].connections() == pair[1].connections() == [])
        assert mirror.running()
        assert mirror.stop(limit=30) == 0


def test_a_mirror_whose_progress_nobody_reads_is_cancelled(world, reader):
    with world.pair(SIZE, [(0, SIZE)]) as pair, \
            run_mirror(world, pair, reader, "--bwlimit", "1M") as mirror:
        wait_for_phase(world, "copying")
        assert world.client("cancel", "job").returncode == 0
        reader.wait_for("nbd-mirror: cancelled")
        assert mirror.wait() == 4
        mirror.expect = None


@pytest.mark.parametrize("reads_at_once", [True, False])
def test_the_last_line_of_a_copys_progress_is_read(world, reader, reads_at_once):
    source = make_disk(world.path("source"), MIB, [(0, MIB)])
    if reads_at_once:
        reader.read()
    with Process([*into(reader, "1"), CLIENT, "copy", source, world.path("target"), "--create",
                  "--progress", "json"], world.env, world.quick("copy.log")) as copy:
        if not reads_at_once:
            wait_for(lambda: world.path("target").exists() and
                     same_content(source, world.path("target")))
        reader.wait_for('"phase":"done"')
        assert copy.wait() == 0
    assert reader.read().endswith("\n")


@contextlib.contextmanager
def copy_at_a_stopped_terminal(world, rate):
    """A copy of 64 MiB, under way, and the server that it goes to."""
    source = make_disk(world.path("source"), SIZE, [(0, SIZE)])
    target = make_disk(world.path("target"), SIZE)
    with world.server(f"d={target}") as server, \
            TerminalSession([CLIENT, "copy", source, server.uri("d"), "--bwlimit", rate],
                            world.env) as terminal:
        terminal.wait_for_text("copying")
        termios.tcflow(terminal.slave, termios.TCOOFF)
        yield terminal, server


def test_a_copy_at_a_stopped_terminal_goes_on_and_takes_signals(world):
    with copy_at_a_stopped_terminal(world, "8M") as (terminal, server):
        seen = server.export("d")["written_bytes"]
        wait_for(lambda: server.export("d")["written_bytes"] >= seen + 8 * MIB)
        terminal.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not server.connections(), what="it is cancelled")
        # What it has to say waits for its reader, and not for ever.
        assert terminal.process.poll() is None
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(30) == 4


def test_a_terminal_that_goes_on_shows_how_the_copy_ended(world):
    with copy_at_a_stopped_terminal(world, "32M") as (terminal, server):
        wait_for(lambda: server.export("d")["written_bytes"] == SIZE and not server.connections())
        termios.tcflow(terminal.slave, termios.TCOON)
        assert terminal.wait() == 0
        terminal.wait_for_text("copied")
    assert same_content(world.path("source"), world.path("target"))
