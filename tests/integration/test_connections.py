# SPDX-License-Identifier: Apache-2.0
"""`--connections auto`: a mirror that finds out how many gain throughput, and gives way to those who
use its source."""

import threading

import pytest

from harness import KIB, MIB, ask, make_disk, wait_for
from peers import Nbdkit

nbd = pytest.importorskip("nbd")
SIZE = 256 * MIB
# One small request at a time on each connection, which the target takes a while for: twice the
# connections copy twice as much, whatever else the machine does.
SLOW = ("--requests", "1", "--request-size", "64K")


@pytest.fixture
def source(world):
    disk = make_disk(world.path("source"), SIZE, [(0, SIZE)])
    with world.server(f"d={disk}", name="source-server") as server:
        yield server


def slow_target(world, delay_ms=100, filters=(), options=()):
    return Nbdkit(world, "memory", str(SIZE), f"wdelay={delay_ms}ms", *options,
                  filters=[*filters, "delay"], threads=64)


class Guest:
    """Writes to the source again and again while its `with` block runs; how much at a time can be
    changed."""

    def __init__(self, uri, bytes_at_a_time):
        self.data = bytes(bytes_at_a_time)
        self.stopped = threading.Event()
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)
        self.thread = threading.Thread(target=self.write)

    def write(self):
        while not self.stopped.is_set():
            self.handle.pwrite(self.data, 0)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        self.handle.shutdown()


def connections(mirror):
    return (mirror.status() or {"connections": 0})["connections"]


def sent(mirror):
    return mirror.status()["disks"][0]["sent_bytes"] if mirror.status() else 0


def test_more_are_made_while_they_gain_throughput(world, source):
    with slow_target(world) as target, \
            world.mirror(source.source("d"), target.uri, "-c", "auto", *SLOW, expect=(4,)) as mirror:
        assert wait_for(lambda: connections(mirror)) == 2
        assert mirror.status()["connections_auto"] is True
        wait_for(lambda: connections(mirror) >= 6, limit=120)
        assert world.client("cancel", "job").returncode == 0
        assert mirror.wait() == 4


def test_it_can_be_left_to_the_job_and_taken_back(world, source):
    with slow_target(world, 500) as target, \
            world.mirror(source.source("d"), target.uri, "-c", "1", *SLOW, expect=(4,)) as mirror:
        wait_for(lambda: connections(mirror) == 1)
        assert mirror.status()["connections_auto"] is False
        assert world.client("set", "job", "--connections", "auto").returncode == 0
        assert mirror.status()["connections_auto"] is True
        wait_for(lambda: connections(mirror) >= 4, limit=120)
        assert world.client("set", "job", "--connections", "3").returncode == 0
        assert mirror.status()["connections_auto"] is False
        wait_for(lambda: connections(mirror) == 3)
        status, answer = ask(mirror.control, "PATCH", "/v1/job", {"connections": "auto"})
        assert status == 200 and answer["connections_auto"] is True
        status, answer = ask(mirror.control, "PATCH", "/v1/job", {"connections": "many"})
        assert status == 400 and "connections" in answer["error"]
        assert mirror.status()["connections_auto"] is True
        assert world.client("cancel", "job").returncode == 0


def test_a_job_that_is_held_back_by_its_limit_stays_small(world, source):
    with slow_target(world, 0) as target, \
            world.mirror(source.source("d"), target.uri, "-c", "auto", "--bwlimit", "4M",
                         expect=(4,)) as mirror:
        most = 0

        def copied_for_ten_seconds():
            nonlocal most
            most = max(most, connections(mirror))
            return sent(mirror) >= 40 * MIB
        wait_for(copied_for_ten_seconds, limit=120)
        # A machine that stands still for a moment may make one step look like a gain.
        assert 2 <= most <= 4
        assert world.client("cancel", "job").returncode == 0


def test_it_gives_way_when_writes_to_its_source_take_longer(world, source):
    with slow_target(world, 500) as target, \
            world.mirror(source.source("d"), target.uri, "-c", "auto", *SLOW, expect=(4,)) as mirror:
        wait_for(lambda: connections(mirror) >= 4, limit=120)
        # Its larger writes take far more than half as long again, and are still many a second.
        with Guest(source.uri("d"), 4 * KIB) as guest:
            # What its writes take beside few connections is found out first.
            wait_for(lambda: connections(mirror) == 2, limit=120)
            guest.data = bytes(4 * MIB)
            wait_for(lambda: connections(mirror) == 1, limit=120)
        assert world.client("cancel", "job").returncode == 0


def test_a_target_that_offers_one_connection_gets_one(world, source):
    with slow_target(world, 100, filters=["multi-conn"], options=["multi-conn-mode=disable"]) as target, \
            world.mirror(source.source("d"), target.uri, "-c", "auto", *SLOW, expect=(4,)) as mirror:
        # Long enough that others would have been tried.
        wait_for(lambda: sent(mirror) >= 10 * 640 * KIB, limit=120)
        assert connections(mirror) == 1
        assert world.client("cancel", "job").returncode == 0
