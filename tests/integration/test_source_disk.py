# SPDX-License-Identifier: Apache-2.0
"""A mirror and a copy read the data of an export of this machine's server from its disk, not over
connections, where they see the same disk."""

import contextlib
import os
import pathlib
import signal
import subprocess

import pytest

from harness import (CLIENT, KIB, MIB, SERVER, Process, background, fio_writer, make_disk,
                     same_content, wait_for)
from nbd_client import connect, write

SIZE = 96 * MIB
DATA = 40 * MIB


def opened_by(program):
    """The paths of the files that it has open now."""
    paths = set()
    for each in pathlib.Path(f"/proc/{program.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it may be closed meanwhile
            paths.add(os.readlink(each))
    return paths


@pytest.fixture
def disk(world):
    return make_disk(world.path("source"), SIZE, [(0, DATA)])


@pytest.mark.parametrize("size", [SIZE, SIZE + 5 * KIB + 7], ids=["whole", "odd"])
@pytest.mark.parametrize("cache", ["writeback", "direct"])
def test_what_the_server_writes_is_read_whichever_way_it_writes(world, disk, cache, size):
    os.truncate(disk, size)
    make_disk(world.path("target"), size)
    with world.server(f"d={disk},cache={cache}") as source, \
            world.server(f"d={world.path('target')}") as target:
        with fio_writer(world, source.uri("d"), rate="40m") as fio, \
                world.mirror(source.source("d"), target.uri("d"), "--verify") as mirror:
            mirror.wait_for_phase("ready")
            # Unaligned, and zeroed: what a direct export does in other ways.
            guest = connect(source)
            guest.set_strict_mode(0)
            for i in range(50):
                guest.pwrite(b"u" * 777, i * 50_001)
                guest.zero(33_333, 5 * MIB + i * 40_007)
            assert mirror.cutover().returncode == 0
            fio.wait()  # its writes are refused now
        # The end of a disk that is no whole sector is the server's to read.
        from_server = cache == "direct" and size % 512 != 0
        assert (source.export("d")["read_bytes"] > 0) == from_server
    assert same_content(disk, world.path("target"))


def test_a_copy_of_an_export_reads_its_disk(world, disk):
    with world.server(f"d={disk}") as source:
        done = world.client("copy", source.source("d"), world.path("target"), "--create")
        assert done.returncode == 0, done.stderr
        assert source.export("d")["read_bytes"] == 0
    assert same_content(disk, world.path("target"))


def test_another_file_at_its_path_is_not_taken_for_it(world, disk):
    served = world.path("served")
    os.link(disk, served)
    with world.server(f"d={disk}") as source:
        # The file that is served has another name only.
        other = make_disk(world.path("other"), SIZE, [(0, DATA)], seed=2)
        os.replace(other, disk)
        done = world.client("copy", source.source("d"), world.path("target"), "--create")
        assert done.returncode == 0, done.stderr
        assert source.export("d")["read_bytes"] >= DATA
    assert same_content(served, world.path("target"))


def test_a_disk_that_cannot_be_seen_is_read_from_its_server(world, disk):
    with world.serving_hidden(disk) as source:
        done = world.client("copy", source.source("d"), world.path("target"), "--create")
        assert done.returncode == 0, done.stderr
        assert source.export("d")["read_bytes"] >= DATA
    assert same_content(disk, world.path("target"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can serve as another user")
def test_a_server_of_somebody_else_does_not_choose_what_is_read(world):
    # A disk of its own, where it can come to.
    nobody = 65534
    disk = make_disk(world.quick("disk"), SIZE, [(0, DATA)])
    for each in (world.quick_directory, disk):
        os.chown(each, nobody, nobody)
    as_nobody = ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]
    if subprocess.run([*as_nobody, SERVER, "--version"], check=False, capture_output=True).returncode:
        pytest.skip("another user cannot come to the program")
    with world.server(f"d={disk}", before=as_nobody) as source:
        done = world.client("copy", source.source("d"), world.path("target"), "--create")
        assert done.returncode == 0, done.stderr
        assert source.export("d")["read_bytes"] >= DATA
    assert same_content(disk, world.path("target"))


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "hidden"])
def test_a_server_can_start_again_while_its_disk_is_read(world, disk, seen):
    def serving():
        return world.server(f"d={disk}", name="first") if seen else \
            world.serving_hidden(disk, name="first")

    make_disk(world.path("target"), SIZE)
    with world.server(f"d={world.path('target')}") as target:
        with serving() as source:
            mirror = world.mirror(source.source("d"), target.uri("d"), "--bwlimit", "4M")
            mirror.wait_for_phase("copying")
            source.kill()
        with mirror:
            with serving() as source:
                write(source, 0, b"w" * MIB)
                assert world.client("set", "job", "--bwlimit", "off").returncode == 0
                mirror.wait_for_phase("ready")
                assert mirror.cutover().returncode == 0
                mirror.wait()
    assert same_content(disk, world.path("target"))


def test_a_server_that_is_gone_is_noticed_though_nothing_is_read_from_it(world, disk):
    make_disk(world.path("target"), SIZE)
    with world.server(f"d={world.path('target')}") as target, world.server(f"d={disk}") as source:
        with world.mirror(source.source("d"), target.uri("d"), "--bwlimit", "256K",
                          "--reconnect-timeout", "1", expect=(1,)) as mirror:
            # All it has to ask is asked by then, and nothing is durable for half a minute.
            wait_for(lambda: target.export("d")["written_bytes"] > 256 * KIB)
            source.kill()
            assert mirror.wait() == 1
        assert "has closed the connection" in mirror.messages()


def test_a_copy_ends_with_the_server_whose_disk_it_reads(world, disk):
    # Its lock is gone too: others may write.
    make_disk(world.path("target"), SIZE)
    with world.server(f"d={disk}") as source, world.server(f"d={world.path('target')}") as target:
        with background(lambda: world.client("copy", source.source("d"), target.uri("d"),
                                             "--bwlimit", "1M")) as copy:
            wait_for(lambda: target.export("d")["written_bytes"] > 0)
            source.kill()
        assert copy.result.returncode == 1
        assert "has closed the connection" in copy.result.stderr


@pytest.mark.parametrize("command", ["mirror", "copy"])
def test_what_is_another_disk_by_the_time_it_is_to_be_read_is_not(world, disk, command):
    other = make_disk(world.path("other"), SIZE, [(0, DATA)], seed=2)
    make_disk(world.path("target"), SIZE)
    with world.server(f"d={world.path('target')}") as target:
        with world.server(f"d={disk}", name="source") as source:
            os.kill(target.pid, signal.SIGSTOP)
            job = Process([CLIENT, command, source.source("d"), target.uri("d"), "--progress", "none",
                           *(["--job", "job"] if command == "mirror" else [])], world.env,
                          world.quick("job.log"), expect=(1,))
            try:
                # It has its source's disk, and is about to open its target.
                wait_for(lambda: str(disk) in opened_by(job))
                source.kill()
            except BaseException:
                os.kill(target.pid, signal.SIGCONT)
                raise
        with job, world.server(f"d={other}", name="source") as source:
            os.kill(target.pid, signal.SIGCONT)
            assert job.wait() == 1
            assert "serves another disk by now" in job.messages()
            assert source.export("d")["state"] == "serving" and source.export("d")["trackers"] == []


def test_what_copies_takes_long_turns_on_a_cpu_and_what_serves_a_guest_does_not(world, disk):
    longest = "100000000"

    def slice_of(pid, thread):
        lines = pathlib.Path(f"/proc/{pid}/task/{thread}/sched").read_text().splitlines()
        return next(line.split()[-1] for line in lines if line.startswith("se.slice"))

    if tuple(int(each) for each in os.uname().release.split(".")[:2]) < (6, 12):
        pytest.skip("threads have no slices of their own here")
    make_disk(world.path("target"), SIZE)
    with world.server(f"d={disk}") as source, world.server(f"d={world.path('target')}") as target:
        try:
            slice_of(source.pid, source.pid)
        except (OSError, StopIteration):
            pytest.skip("the kernel does not tell slices")
        guest = connect(source)
        with world.mirror(source.source("d"), target.uri("d"), "--bwlimit", "1M",
                          expect=(4,)) as mirror:
            wait_for(lambda: target.export("d")["written_bytes"] > 0)
            for server in (source, target):
                for each in server.connections():
                    long = slice_of(server.pid, each["thread"]) == longest
                    assert long == each["background"]
            workers = [each.name for each in pathlib.Path(f"/proc/{mirror.pid}/task").iterdir()
                       if (each / "comm").read_text().startswith("worker-")]
            assert workers and all(slice_of(mirror.pid, each) == longest for each in workers)
            assert slice_of(mirror.pid, mirror.pid) != longest
            assert world.client("cancel", "job").returncode == 0
            assert mirror.wait() == 4
        guest.shutdown()
