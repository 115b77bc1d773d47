# SPDX-License-Identifier: Apache-2.0
"""Targets that are not there, stand still, forget, or fail at the worst moment: what becomes of the
job, and of the source, which has its writers all the time."""

import errno
import os
import signal
import time

import pytest

from harness import KIB, MIB, make_disk, need, same_content, wait_for
from nbd_client import connect, nbd, write
from peers import Nbdkit, Recorder

SIZE = 64 * MIB


@pytest.fixture
def source(world):
    disk = make_disk(world.path("source"), SIZE, [(0, SIZE // 2)])
    with world.server(f"d={disk}", name="source-server") as server:
        yield server


@pytest.fixture
def target_disk(world):
    return make_disk(world.path("target"), SIZE)


def finish(mirror):
    mirror.wait_for_phase("ready")
    result = mirror.cutover()
    assert result.returncode == 0, result.stderr
    assert mirror.wait() == 0


def is_in_service(source):
    write(source, 0, b"w" * 4096)
    export = source.export("d")
    return export["state"] == "serving" and export["trackers"] == []


@pytest.mark.parametrize("command", ["mirror", "copy"])
def test_where_nobody_listens_is_said_at_once_and_not_tried_again(world, source, command):
    nowhere = world.quick("nowhere.sock")
    begun = time.monotonic()
    side = source.source("d") if command == "mirror" else source.uri("d")
    options = ["--job", "job", "--reconnect-timeout", "600"] if command == "mirror" else []
    result = world.client(command, side, f"nbd+unix:///d?socket={nowhere}", "--progress", "none", *options)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert str(nowhere) in result.stderr and "No such file" in result.stderr
    assert "trying again" not in result.stderr and "--resume" not in result.stderr
    assert time.monotonic() - begun < 30
    assert is_in_service(source)


@pytest.mark.parametrize("phase", ["copying", "ready"])
def test_a_target_that_stands_still_keeps_no_job_from_being_cancelled(world, source, target_disk,
                                                                      phase):
    limit = ["--bwlimit", "8M"] if phase == "copying" else []
    with world.server(f"d={target_disk}") as target:
        with world.mirror(source.source("d"), target.uri("d"), *limit, expect=(4,)) as mirror:
            mirror.wait_for_phase(phase)
            if phase == "copying":
                wait_for(lambda: target.export("d")["written_bytes"] > 0)
            os.kill(target.pid, signal.SIGSTOP)
            try:
                write(source, SIZE - MIB, b"n" * MIB)
                assert world.client("cancel", "job").returncode == 0
                assert mirror.wait(limit=30) == 4
            finally:
                os.kill(target.pid, signal.SIGCONT)
        assert is_in_service(source)


def test_a_name_whose_job_was_cancelled_can_be_used_anew(world, source, target_disk):
    with world.server(f"d={target_disk}") as target:
        with world.mirror(source.source("d"), target.uri("d"), "--bwlimit", "8M", expect=(4,)) as mirror:
            mirror.wait_for_phase("copying")
            assert world.client("cancel", "job").returncode == 0
            assert mirror.wait() == 4
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            finish(mirror)
    assert same_content(world.path("source"), target_disk)


@pytest.mark.parametrize("phase", ["copying", "ready"])
def test_what_a_target_has_acknowledged_and_lost_is_sent_again(world, source, target_disk, phase):
    """nbdkit's cache has what was not flushed, and dies with it."""
    def start():
        link = world.quick("target.sock")
        link.unlink(missing_ok=True)
        target = Nbdkit(world, "file", target_disk, "cache=writeback", filters=["cache"])
        link.symlink_to(target.socket)
        return target

    limit = ["--bwlimit", "8M"] if phase == "copying" else []
    target = start()
    with world.mirror(source.source("d"), f"nbd+unix:///?socket={world.quick('target.sock')}",
                      "--reconnect-timeout", "600", *limit) as mirror:
        mirror.wait_for_phase(phase)
        if phase == "copying":
            wait_for(lambda: mirror.status()["disks"][0]["sent_bytes"] > 8 * MIB)
        for round_number in range(3):
            sent = mirror.status()["disks"][0]["sent_bytes"]
            write(source, SIZE // 2 + round_number * MIB, bytes([round_number + 1]) * MIB)
            wait_for(lambda: mirror.status()["disks"][0]["sent_bytes"] > sent)
            target.kill()
            wait_for(lambda: "trying again" in (mirror.status()["error"] or ""))
            target = start()
            wait_for(lambda: mirror.status()["error"] is None)
        assert world.client("set", "job", "--bwlimit", "off").returncode == 0
        with target:
            finish(mirror)
    assert same_content(world.path("source"), target_disk)


def test_a_flush_that_fails_while_the_writers_wait_is_no_hand_over(world, source, target_disk):
    failed = world.quick("failed")
    held = (f"'{need('curl')}' -s --unix-socket '{source.control}' http://server/v1/exports/d "
            "| grep -q '\"state\":\"held\"'")
    flush = f"if [ ! -e '{failed}' ] && {held}; then touch '{failed}'; echo EIO >&2; exit 1; fi"
    with Recorder(world, target_disk, flush=flush) as target:
        with world.mirror(source.source("d"), target.uri, "--max-downtime", "30000") as mirror:
            mirror.wait_for_phase("ready")
            guest = connect(source)
            result = mirror.cutover()
            assert result.returncode == 1 and failed.exists(), result.stdout
            assert "not cut over" in result.stderr and "flush" in result.stderr
            guest.pwrite(b"g" * 4096, SIZE - 4096)
            assert source.export("d")["state"] == "serving"
            finish(mirror)
            with pytest.raises(nbd.Error) as refused:
                guest.pwrite(b"g" * 4096, 0)
            assert refused.value.errnum == errno.ESHUTDOWN
    assert same_content(world.path("source"), target_disk)


def test_what_is_allocated_after_the_tracker_has_begun_is_copied(world, source, target_disk):
    """The map of what is allocated is asked for after the tracker stands, whenever that is."""
    with world.server(f"d={target_disk}") as target:
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            wait_for(lambda: source.export("d")["trackers"])
            os.kill(mirror.pid, signal.SIGSTOP)
            write(source, SIZE - 3 * MIB, b"h" * (64 * KIB))
            os.kill(mirror.pid, signal.SIGCONT)
            finish(mirror)
    assert same_content(world.path("source"), target_disk)


def test_what_is_allocated_is_asked_for_in_large_pieces(world):
    """A source whose answers take their time must not be asked for each block."""
    size = 1024 * MIB
    disk = make_disk(world.path("holes"), size, [(0, MIB)])
    target = make_disk(world.path("target"), size)
    with Recorder(world, disk, read_only=True, can_extents="exit 0",
                  extents=f"echo extents $4 $3 >> '{world.quick('asked')}'; sleep 0.05; "
                          f"echo 0 {MIB} 0; echo {MIB} {size - MIB} 3") as server:
        result = world.client("copy", server.uri, target)
        assert result.returncode == 0, result.stderr
    asked = world.quick("asked").read_text().splitlines()
    assert 1 <= len(asked) <= 16, asked
    assert same_content(disk, target)
