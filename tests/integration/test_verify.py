# SPDX-License-Identifier: Apache-2.0
"""`mirror --verify`: what was copied is proved to be at the target, under writers."""

import pytest

from harness import MIB, fio_writer, make_disk, same_content, wait_for
from nbd_client import write
from peers import Nbdkit, Recorder


SIZE = 64 * MIB
DATA = 16 * MIB
BAD = 3 * MIB


@pytest.fixture
def source(world, request):
    """Its disk is to be seen, if nothing else is said."""
    disk = make_disk(world.path("source"), SIZE, [(0, DATA)])
    make_disk(world.path("target"), SIZE)
    serving = world.serving_hidden(disk, name="source-server") \
        if getattr(request, "param", "seen") == "hidden" else \
        world.server(f"d={disk}", name="source-server")
    with serving as server:
        yield server


@pytest.fixture
def target(world, source):
    with world.server(f"d={world.path('target')}", name="target-server") as server:
        yield server


class BadTarget(Recorder):
    """Each write of the block at BAD arrives with one wrong byte, as long as it is told to."""

    def __init__(self, world):
        disk, self.good = world.path("target"), world.quick("good")
        write = f"dd of='{disk}' bs=64k oflag=seek_bytes conv=notrunc status=none seek="
        super().__init__(world, disk, pwrite=(
            f"{write}$4; if [ $4 -eq {BAD} ] && [ ! -e '{self.good}' ]; then "
            f"printf x | {write}{BAD + 5}; fi"))


@pytest.mark.parametrize("source", ["seen", "hidden"], indirect=True)
def test_all_that_was_copied_is_read_again_and_no_writer_is_taken_for_an_error(world, source,
                                                                               target):
    with fio_writer(world, source.uri("d"), size=8 * MIB, rate="16m", block="4k"):
        with world.mirror(source.source("d"), target.uri("d"), "--verify") as mirror:
            mirror.wait_for_phase("ready")
            passes = mirror.status()["disks"][0]["passes"]
            wait_for(lambda: mirror.status()["disks"][0]["passes"] > passes + 10)
            assert mirror.cutover().returncode == 0
            assert mirror.wait() == 0
    assert same_content(world.path("source"), world.path("target"))


def test_a_tracker_that_is_removed_while_the_copy_is_checked_costs_a_comparison(world, source):
    # Nobody knows then what was written since: to fail would be as wrong as to go on.
    with Nbdkit(world, "file", world.path("target"), "rdelay=200ms", filters=["delay"]) as target, \
            world.mirror(source.source("d"), target.uri, "--verify", "-c", "1", "--requests", "1",
                         expect=(4,)) as mirror:
        wait_for(lambda: (mirror.status() or {"disks": [{"sent_bytes": 0}]})
                 ["disks"][0]["sent_bytes"] >= DATA)
        sent = mirror.status()["disks"][0]["moved_bytes"]
        wait_for(lambda: mirror.status()["disks"][0]["moved_bytes"] > sent)  # it is checked
        assert source.ask("DELETE", "/v1/exports/d/trackers/mirror.job")[0] in (200, 204)
        mirror.wait_for_message("are compared")
        assert world.client("cancel", "job").returncode == 0
        assert mirror.wait() == 4


def test_holes_are_not_read(world, source, target):
    with world.mirror(source.source("d"), target.uri("d"), "--verify") as mirror:
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 0
        assert mirror.wait() == 0
    assert target.export("d")["read_bytes"] < DATA + 4 * MIB


def test_a_block_that_did_not_arrive_is_found_before_the_hand_over(world, source):
    with BadTarget(world) as target:
        with world.mirror(source.source("d"), target.uri, "--verify", expect=(1,)) as mirror:
            mirror.wait_for_phase("ready")
            result = mirror.cutover()
            assert result.returncode == 1
            assert "the target is not what was copied to it" in result.stderr
            assert f"bytes {BAD}-" in result.stderr
            assert mirror.wait() == 1
        assert source.export("d")["state"] == "serving"
        write(source, 0, b"x" * 512)  # its writers go on
        # A mirror that goes on with it reads all of it again, and copies what is rewritten.
        target.good.touch()
        write(source, BAD, b"y" * 512)
        with world.mirror(None, None, "--resume", "--verify") as mirror:
            mirror.wait_for_phase("ready")
            assert mirror.cutover().returncode == 0
            assert mirror.wait() == 0
    assert same_content(world.path("source"), world.path("target"))


def test_a_block_of_the_last_delta_that_did_not_arrive_is_found(world, source):
    with BadTarget(world) as target:
        target.good.touch()
        with world.mirror(source.source("d"), target.uri, "--verify", expect=(1,)) as mirror:
            mirror.wait_for_phase("ready")
            target.good.unlink()
            write(source, BAD, b"y" * 512)
            assert mirror.cutover().returncode == 1
            assert mirror.wait() == 1
            mirror.wait_for_message(f"bytes {BAD}-")
    assert source.export("d")["state"] == "serving"


def test_a_block_of_a_long_delta_that_did_not_arrive_is_found(world, source):
    with BadTarget(world) as target:
        target.good.touch()
        with world.mirror(source.source("d"), target.uri, "--verify", expect=(1,)) as mirror:
            mirror.wait_for_phase("ready")
            # So that some of it is durable long before the rest is copied.
            assert world.client("set", "job", "--bwlimit", "32M").returncode == 0
            target.good.unlink()
            sent = mirror.status()["disks"][0]["sent_bytes"]
            write(source, BAD, b"y" * (32 * MIB))
            wait_for(lambda: mirror.status()["disks"][0]["sent_bytes"] >= sent + 32 * MIB)
            assert world.client("set", "job", "--bwlimit", "off").returncode == 0
            assert mirror.cutover().returncode == 1
            assert mirror.wait() == 1
            mirror.wait_for_message(f"bytes {BAD}-")
    assert source.export("d")["state"] == "serving"


def test_without_it_nobody_looks(world, source):
    with BadTarget(world) as target:
        with world.mirror(source.source("d"), target.uri) as mirror:
            mirror.wait_for_phase("ready")
            assert mirror.cutover().returncode == 0
            assert mirror.wait() == 0
    assert not same_content(world.path("source"), world.path("target"))
