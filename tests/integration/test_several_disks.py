# SPDX-License-Identifier: Apache-2.0
"""The disks of one guest in one job: copied side by side within one limit, cut over at one moment,
handed over all or none."""

import json
import os
import re
import signal
import threading
import time

import pytest

from harness import (KIB, MIB, ask, background, content, fio_writer, make_disk, same_content,
                     wait_for)
from peers import StallingTarget

nbd = pytest.importorskip("nbd")

NAMES = ["a", "b", "c"]
SIZES = [64 * MIB, 24 * MIB + 512, 4 * MIB]


@pytest.fixture
def source(world):
    for name, size in zip(NAMES, SIZES):
        make_disk(world.path(f"source-{name}"), size, [(0, size // 2)])
    with world.server(*(f"{name}={world.path(f'source-{name}')}" for name in NAMES),
                      name="source-server") as server:
        yield server


@pytest.fixture
def target(world):
    for name, size in zip(NAMES, SIZES):
        make_disk(world.path(f"target-{name}"), size)
    with world.server(*(f"{name}={world.path(f'target-{name}')}" for name in NAMES),
                      name="target-server") as server:
        yield server


def begin(world, source, target, *options, names=NAMES, expect=(0,)):
    pairs = [end for name in names for end in (source.source(name), target.uri(name))]
    return world.mirror(*pairs[:2], *pairs[2:], *options, expect=expect)


def states(server, names=NAMES):
    return [server.export(name)["state"] for name in names]


def same(world, names=NAMES):
    return all(same_content(world.path(f"source-{name}"), world.path(f"target-{name}"))
               for name in names)


def connections(mirror):
    """Of each disk, in their order."""
    text = ask(mirror.control, "GET", "/metrics")[1]
    return [int(count) for count in
            re.findall(r"^nbd_mirror_job_connections{.*} (\d+)$", text, re.MULTILINE)]


def test_all_disks_are_moved_under_their_writers_and_by_one_record(world, source, target):
    with fio_writer(world, source.uri("a"), size=16 * MIB, rate="8m"), \
            fio_writer(world, source.uri("b"), size=4 * MIB, rate="4m", seed=2):
        wait_for(lambda: all(source.export(name)["written_bytes"] > MIB for name in ("a", "b")))
        with begin(world, source, target) as mirror:
            mirror.wait_for_phase("ready")
            status = mirror.status()
            assert [disk["size_bytes"] for disk in status["disks"]] == SIZES
            assert [disk["target"] for disk in status["disks"]] == [target.uri(n) for n in NAMES]
            assert all(disk["moved_bytes"] >= size // 2 and disk["passes"] > 0
                       for disk, size in zip(status["disks"], SIZES))
            map_of = json.loads(world.client("status", "job", "--json").stdout)
            assert len(map_of["disks"]) == 3
            shown = world.client("status", "job").stdout
            assert all(target.uri(name) in shown for name in NAMES)
            result = mirror.cutover()
            assert result.returncode == 0 and result.stdout.startswith("cut over: downtime ")
            assert mirror.wait() == 0
    assert states(source) == ["retired"] * 3
    assert [source.export(name)["moved"]["to"] for name in NAMES] == [target.uri(n) for n in NAMES]
    assert all(source.export(name)["trackers"] == [] for name in NAMES)
    assert len(list(world.quick("state/moved").iterdir())) == 1
    assert same(world)


class TwoDisks(threading.Thread):
    """A writer that numbers its writes, each to one disk and then to the other: at any moment the
    second is not ahead of the first, and at most one write behind."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.handles = []
        for name in ("a", "b"):
            handle = nbd.NBD()
            handle.connect_uri(server.uri(name))
            self.handles.append(handle)
        self.count = 0
        self.stopped = False

    def run(self):
        while not self.stopped:
            self.count += 1
            for handle in self.handles:
                handle.pwrite(self.count.to_bytes(8, "big") * 64, 8 * KIB)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped = True
        self.join(60)


def test_the_copies_of_all_disks_are_of_one_moment(world, source, target):
    for _ in range(3):
        with TwoDisks(source) as writer:
            wait_for(lambda: writer.count > 100)
            with begin(world, source, target, "--handover", "release", "--cutover", "auto",
                       names=("a", "b")) as mirror:
                assert mirror.wait() == 0
            count = writer.count
            wait_for(lambda: writer.count > count + 100)  # it goes on
        numbers = [int.from_bytes(content(world.path(f"target-{name}"), 8 * KIB, 8), "big")
                   for name in ("a", "b")]
        assert 0 < numbers[0] <= count + 1 and numbers[0] - numbers[1] in (0, 1), numbers


def test_one_bandwidth_limit_holds_over_all_disks(world, source, target):
    with begin(world, source, target, "--bwlimit", "4M", expect=(4,)) as mirror:
        def written():
            return [target.export(name)["written_bytes"] for name in NAMES[:2]]
        wait_for(lambda: all(each > 0 for each in written()))
        begun, before = time.monotonic(), sum(written())
        wait_for(lambda: sum(written()) >= before + 16 * MIB)
        # Four seconds, less what may be caught up on.
        assert time.monotonic() - begun > 3.5
        assert world.client("set", "job", "--bwlimit", "64K").returncode == 0
        assert mirror.phase() == "copying"
        assert world.client("cancel", "job").returncode == 0


def test_connections_are_shared_and_a_disk_that_is_done_leaves_its_own(world, source, target):
    with begin(world, source, target, "-c", "6", "--bwlimit", "4M", expect=(4,)) as mirror:
        mirror.wait_for_phase("copying")
        assert connections(mirror) == [2, 2, 2]
        # The small one is through after its two MiB.
        wait_for(lambda: connections(mirror)[:2] == [3, 3])
        assert world.client("set", "job", "--connections", "2").returncode == 0
        wait_for(lambda: connections(mirror)[:2] == [1, 1])
        assert world.client("cancel", "job").returncode == 0
    wait_for(lambda: all(target.export(name)["connections"] == 0 for name in NAMES))
    assert states(source) == ["serving"] * 3


def test_when_one_disk_takes_too_long_none_is_handed_over(world, source, target):
    with StallingTarget(world, source, export="a", disk=world.path("target-b")) as slow:
        with world.mirror(source.source("a"), target.uri("a"), source.source("b"), slow.uri,
                          "--max-downtime", "2000") as mirror:
            mirror.wait_for_phase("ready")
            with background(mirror.cutover) as asked:
                slow.wait_for_stall()
                assert states(source) == ["held", "held", "serving"]
                wait_for(lambda: states(source) == ["serving"] * 3)
                slow.go_on()
            assert asked.result.returncode == 1 and "2000 ms" in asked.result.stderr
            mirror.wait_for_phase("ready")
            assert list(world.quick("state/moved").iterdir()) == []
            assert mirror.cutover().returncode == 0
            assert mirror.wait() == 0
    assert states(source) == ["retired", "retired", "serving"]
    assert same(world, ["a", "b"])


def test_when_one_disk_cannot_be_held_the_others_go_on(world, source, target):
    with begin(world, source, target, expect=(4,)) as mirror:
        mirror.wait_for_phase("ready")
        held = source.hold("c")
        result = mirror.cutover()
        assert result.returncode == 1 and "export 'c' is held already" in result.stderr
        assert states(source) == ["serving", "serving", "held"]
        source.release(held, "c")
        assert world.client("cancel", "job").returncode == 0


def test_a_killed_job_is_resumed_with_all_its_disks(world, source, target):
    with begin(world, source, target, "--bwlimit", "16M") as mirror:
        wait_for(lambda: target.export("a")["written_bytes"] > 12 * MIB)
        mirror.kill()
    # Options that name its disks otherwise are refused, before anything is done.
    for wrong, word in (([source.source("a"), target.uri("a")], "3 disks"),
                        ([end for name in ("a", "c", "b")
                          for end in (source.source(name), target.uri(name))], "mirrors")):
        result = world.client("mirror", *wrong, "--resume", "--job", "job")
        assert result.returncode == 1 and word in result.stderr
    with world.mirror(None, None, "--resume") as mirror:
        mirror.wait_for_phase("ready")
        assert len(mirror.status()["disks"]) == 3
        assert mirror.cutover().returncode == 0
        assert mirror.wait() == 0
    assert same(world)
    assert target.export("a")["written_bytes"] < 32 * MIB + 24 * MIB


def test_a_job_that_died_behind_its_hand_over_is_done(world, source, target):
    with begin(world, source, target) as mirror:
        mirror.wait_for_phase("ready")
        os.kill(mirror.pid, signal.SIGSTOP)  # as if it had died between the retirement and its answer
        holds = {name: source.hold(name) for name in NAMES}
        assert source.ask("POST", "/v1/retire", {"job": "job", "exports": [
            {"name": name, "hold": hold} for name, hold in holds.items()]})[0] == 200
        mirror.kill()
    with world.mirror(None, None, "--resume") as mirror:
        assert mirror.wait() == 0
        assert "had moved to" in mirror.output and "2 more" in mirror.output


def test_the_loss_of_one_target_is_mended_for_all(world, source, target):
    other = make_disk(world.path("other"), SIZES[1])
    with world.server(f"b={other}", name="other-server") as lost:
        uri = lost.uri("b")
        mirror = world.mirror(source.source("a"), target.uri("a"), source.source("b"), uri)
        mirror.wait_for_phase("ready")
        lost.kill()
    with world.server(f"b={other}", name="other-server"):
        with mirror:
            mirror.wait_for_phase("ready")
            wait_for(lambda: mirror.cutover().returncode == 0)
            assert mirror.wait() == 0
    assert same_content(world.path("source-b"), other) and same(world, ["a"])


@pytest.mark.parametrize("more, sentence", [
    (["server:b"], "SOURCE and TARGET are expected, for each disk"),
    (["server:a", "/t2"], "source 'server:a' is named twice"),
    (["server:b", "/t"], "target '/t' is named twice"),
    (["server:b@/elsewhere", "/t2"], "is an export of another server"),
    (["/b", "/t2"], "source '/b' cannot report what is written to it"),
    (["server:b", "server:c"], "a path or an NBD URI is expected"),
])
def test_disks_that_cannot_be_moved_together_are_wrong_usage(world, more, sentence):
    result = world.client("mirror", "server:a", "/t", *more)
    assert result.returncode == 2 and sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nothing_is_begun_when_one_disk_cannot_be(world, source, target):
    small = make_disk(world.path("small"), KIB)
    result = world.client("mirror", source.source("a"), target.uri("a"), source.source("b"), small,
                          "--job", "job", "--create")
    assert result.returncode == 1 and "too small" in result.stderr
    assert all(source.export(name)["trackers"] == [] for name in NAMES)
    assert target.export("a")["written_bytes"] == 0
