# SPDX-License-Identifier: Apache-2.0
"""A target that is slower than the writer: the writer is slowed down, if that is allowed."""

import contextlib
import os
import signal
import threading

import pytest

from harness import MIB, Process, content, fio_writer, make_disk, need, same_content, wait_for
from nbd_client import connect, write

pytest.importorskip("nbd")

SIZE = 128 * MIB


@pytest.fixture
def source(world):
    disk = make_disk(world.path("source"), SIZE, [(0, SIZE)])
    with world.server(f"d={disk}") as server:
        yield server


@contextlib.contextmanager
def slow_target(world):
    """Takes 16 MB/s: less than the writer makes dirty, in blocks of 64 KiB."""
    disk = make_disk(world.path("target"), SIZE)
    path = world.path("slow.sock")
    with Process([need("nbdkit"), "-f", "-U", path, "--filter=rate", "file", disk,
                  "rate=128M"], world.env, world.path("nbdkit.log"),
                 # nbdkit 1.32 may die on an assertion when its client is gone.
                 expect=(0, -signal.SIGABRT)) as nbdkit:
        wait_for(path.exists)
        nbdkit.uri = f"nbd+unix:///?socket={path}"
        yield nbdkit


def test_a_writer_that_is_too_fast_is_slowed_down_until_the_job_is_ready(world, source):
    with slow_target(world) as target, \
            fio_writer(world, source.uri("d"), size=SIZE, rate="20m", depth=4), \
            world.mirror(source.source("d"), target.uri, "--max-downtime", "1000") as mirror:
        mirror.wait_for_phase("catching_up")
        wait_for(lambda: mirror.status()["throttle"], limit=120, what="a throttle")
        assert mirror.status()["throttle"]["delay_us"] > 0
        assert source.export("d")["throttle"] is not None
        assert "delayed by" in world.client("status", "job").stdout
        mirror.wait_for_phase("ready", limit=120)
        assert mirror.cutover().returncode == 0
        mirror.wait()
        assert source.export("d")["throttle"] is None
    assert same_content(world.path("source"), world.path("target"))


def test_converge_off_slows_nobody_down_and_says_what_that_means(world, source):
    with slow_target(world) as target, \
            fio_writer(world, source.uri("d"), size=SIZE, rate="20m", depth=4), \
            world.mirror(source.source("d"), target.uri, "--converge", "off", "--max-downtime",
                         "1000", expect=(4,)) as mirror:
        mirror.wait_for_phase("catching_up")
        wait_for(lambda: "does not converge" in (mirror.status()["error"] or ""), limit=120)
        assert mirror.status()["throttle"] is None
        assert source.export("d")["throttle"] is None
        assert mirror.phase() == "catching_up"
        assert world.client("cancel", "job").returncode == 0


@contextlib.contextmanager
def counting(server):
    """Writes a counter to the disk's start, again and again; yields what tells it."""
    count, stopped = 0, threading.Event()

    def run():
        nonlocal count
        handle = connect(server)
        while not stopped.wait(0.01):
            count += 1
            handle.pwrite(count.to_bytes(8, "big"), 0)
        handle.shutdown()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: count
    finally:
        stopped.set()
        thread.join()


def test_blocks_that_are_rewritten_in_each_round_are_copied_last(world):
    """A counter at the disk's start is written all the time. Of a round that takes seconds it is
    copied when all else is there, not in the order of the disk."""
    size, part = 256 * MIB, 32 * MIB
    with world.server(f"d={make_disk(world.path('source'), size, [(0, 4096)])}", name="a") as source, \
            world.server(f"d={make_disk(world.path('target'), size)}", name="b") as target, \
            world.mirror(source.source("d"), target.uri("d"), "--bwlimit", "12M", "--converge", "off",
                         "--max-downtime", "100") as mirror:
        mirror.wait_for_phase("ready")

        def arrived(offset):
            there = content(world.path("target"), offset, part)
            return sum(MIB for at in range(0, part, MIB) if there[at:at + MIB].count(0) < MIB)

        data = os.urandom(part)

        def counter():
            return int.from_bytes(content(world.path("target"), 0, 8), "big")

        with counting(source) as count:
            # Behind the place where the round of the first part is by then: for the next one.
            write(source, 160 * MIB, data)
            wait_for(lambda: arrived(160 * MIB) > 4 * MIB)
            write(source, 32 * MIB, data)
            before = count()
            wait_for(lambda: arrived(32 * MIB) > part * 3 // 4)
            assert counter() <= before
            wait_for(lambda: counter() > before)
            assert content(world.path("target"), 32 * MIB, part) == data
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert same_content(world.path("source"), world.path("target"))


def test_a_throttle_does_not_outlive_its_mirror(world, source):
    with slow_target(world) as target, \
            fio_writer(world, source.uri("d"), size=SIZE, rate="20m", depth=4), \
            world.mirror(source.source("d"), target.uri, "--max-downtime", "1000") as mirror:
        wait_for(lambda: source.export("d")["throttle"], limit=120)
        mirror.kill()
        wait_for(lambda: source.export("d")["throttle"] is None, limit=10)


def test_a_throttle_ends_with_its_job_when_that_is_cancelled(world, source):
    with slow_target(world) as target, \
            fio_writer(world, source.uri("d"), size=SIZE, rate="20m", depth=4), \
            world.mirror(source.source("d"), target.uri, "--max-downtime", "1000",
                         expect=(4,)) as mirror:
        wait_for(lambda: source.export("d")["throttle"], limit=120)
        assert world.client("cancel", "job").returncode == 0
        mirror.wait()
        # And not by its lease, some seconds later.
        assert source.export("d")["throttle"] is None
