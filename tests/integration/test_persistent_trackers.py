# SPDX-License-Identifier: Apache-2.0
"""Trackers outlive a clean end of their server, and nothing else."""

import os
import re
import signal
import time

import pytest

from harness import KIB, MIB, fio_writer, make_disk, same_content, wait_for
from nbd_client import write
from wire import READ, WRITE, Wire, header


SIZE = 256 * MIB
DATA = 96 * MIB


@pytest.fixture
def disks(world):
    make_disk(world.path("source"), SIZE, [(0, 64 * MIB), (SIZE - 32 * MIB, 32 * MIB)])
    make_disk(world.path("target"), SIZE)


@pytest.fixture
def target(world, disks):
    with world.server(f"d={world.path('target')}", name="b") as server:
        yield server


def start(world, *options, disk="source", export="d", name="a", **more):
    return world.server(f"{export}={world.path(disk)}", *options, name=name, **more)


def sent(server):
    return server.export("d")["written_bytes"]


def resume(world):
    return world.mirror(None, None, "--resume")


def finish(mirror):
    mirror.wait_for_phase("ready")
    assert mirror.cutover().returncode == 0
    mirror.wait()


def records(world):
    directory = world.quick("state") / "trackers"
    return list(directory.iterdir()) if directory.exists() else []


def track(server, name="t", export="d", **more):
    status, answer = server.ask("PUT", f"/v1/exports/{export}/trackers/{name}", more)
    assert status == 201
    return answer["incarnation"]


def trackers(server, export="d"):
    """Once it answers, it has looked for kept ones: its socket listens earlier."""
    return {each["name"]: each for each in server.export(export)["trackers"]}


def skip_unless_kept(server):
    """Of files on some file systems no trackers are kept: tmpfs, network file systems."""
    if server.running():
        assert server.port  # said last
    reason = re.search("tracker.* not kept.*", server.messages())
    if reason:
        pytest.skip(reason.group(0))


@pytest.fixture
def ready_and_stopped(world, target):
    """A mirror that was ready died, then came a write that it has not seen, then the server ended
    cleanly."""
    with start(world) as source:
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            mirror.wait_for_phase("ready")
            mirror.kill()
        write(source, 100 * MIB, b"n" * MIB)
    skip_unless_kept(source)
    assert len(records(world)) == 1


def test_a_mirror_goes_on_in_its_first_round(world, target):
    with start(world) as source:
        mirror = world.mirror(source.source("d"), target.uri("d"), "--bwlimit", "32M")
        wait_for(lambda: sent(target) > 48 * MIB)
    with mirror:
        skip_unless_kept(source)
        before = sent(target)
        with start(world):
            finish(mirror)
    assert same_content(world.path("source"), world.path("target"))
    assert "are compared" not in mirror.messages()
    # What 4 x 16 requests of 256 KiB and 8 MiB between two flushes may have lost.
    assert sent(target) - before < DATA - 48 * MIB + 32 * MIB


def test_a_mirror_that_is_ready_goes_on_with_the_delta(world, target):
    with start(world) as source:
        mirror = world.mirror(source.source("d"), target.uri("d"))
        mirror.wait_for_phase("ready")
        # Writes that it has not seen when the server ends.
        os.kill(mirror.pid, signal.SIGSTOP)
        write(source, 3 * MIB, b"n" * (128 * KIB))
        write(source, 120 * MIB, b"n" * (64 * KIB))
    with mirror:
        skip_unless_kept(source)
        before = sent(target)
        with start(world) as source:
            assert trackers(source)["mirror.job"]["dirty_bytes"] == 192 * KIB
            os.kill(mirror.pid, signal.SIGCONT)
            wait_for(lambda: "connected again" in mirror.messages())
            finish(mirror)
    assert same_content(world.path("source"), world.path("target"))
    assert "are compared" not in mirror.messages()
    assert sent(target) - before == 192 * KIB


@pytest.mark.parametrize("phase", ["copying", "catching_up"])
def test_a_mirror_under_a_writer_lives_through_restarts(world, target, phase):
    with start(world) as source:
        limit = ["--bwlimit", "24M"] if phase == "copying" else ["--max-downtime", "1"]
        mirror = world.mirror(source.source("d"), target.uri("d"), *limit)
        if phase == "copying":
            wait_for(lambda: sent(target) > 16 * MIB)
        else:
            mirror.wait_for_phase("catching_up", "ready")
        with fio_writer(world, source.uri("d"), rate="20m", size=64 * MIB) as writer:
            wait_for(lambda: sent(source) > 8 * MIB)
            # It ends while the writer writes, who goes away with it.
            source.stop()
            writer.wait()
    with mirror:
        skip_unless_kept(source)
        for _ in range(3):
            with start(world) as source:
                wait_for(lambda: mirror.status()["error"] is None)
                with fio_writer(world, source.uri("d"), rate="20m", size=64 * MIB) as writer:
                    wait_for(lambda: sent(source) > 4 * MIB)
                    source.stop()
                    writer.wait()
        with start(world) as source:
            assert world.client("set", "job", "--bwlimit", "off", "--max-downtime",
                                "20000").returncode == 0
            finish(mirror)
    assert "are compared" not in mirror.messages()
    assert same_content(world.path("source"), world.path("target"))


def test_a_resumed_mirror_sends_the_delta(world, target, ready_and_stopped):
    before = sent(target)
    with start(world), resume(world) as mirror:
        finish(mirror)
    assert "are compared" not in mirror.messages()
    assert sent(target) - before == MIB
    assert same_content(world.path("source"), world.path("target"))


def test_a_server_that_is_killed_keeps_none(world, target, ready_and_stopped):
    with start(world) as source:
        assert "mirror.job" in trackers(source)
        assert records(world) == []
        write(source, 3 * MIB, b"m" * (64 * KIB))
        source.kill()
    before = sent(target)
    with start(world) as source:
        assert trackers(source) == {}
        with resume(world) as mirror:
            finish(mirror)
    mirror.wait_for_message("are compared")
    assert sent(target) - before == MIB + 64 * KIB
    assert same_content(world.path("source"), world.path("target"))


def test_an_old_record_that_comes_back_is_not_used(world, target, ready_and_stopped):
    """As from a backup of the state directory, after writes that the record does not know."""
    record, = records(world)
    old = record.read_bytes()
    with start(world) as source:
        write(source, 3 * MIB, b"m" * (64 * KIB))
        source.kill()
    record.write_bytes(old)
    with start(world) as source:
        assert trackers(source) == {}
        source.wait_for_message("another program has changed it")
        with resume(world) as mirror:
            finish(mirror)
    assert same_content(world.path("source"), world.path("target"))


def test_what_another_program_has_written_meanwhile_is_found_by_comparing(world, target,
                                                                           ready_and_stopped):
    path = world.path("source")
    times = os.stat(path)
    with open(path, "r+b") as disk:
        disk.seek(5 * MIB)
        disk.write(b"o" * 4096)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as some copying programs do
    before = sent(target)
    with start(world) as source:
        assert trackers(source) == {}
        source.wait_for_message("another program has changed it")
        with resume(world) as mirror:
            finish(mirror)
    mirror.wait_for_message("are compared")
    assert MIB < sent(target) - before < 2 * MIB
    assert same_content(path, world.path("target"))


def test_a_disk_that_was_replaced_or_has_grown_has_none(world, disks):
    with start(world) as source:
        track(source)
    skip_unless_kept(source)
    os.truncate(world.path("source"), SIZE + MIB)
    with start(world) as source:
        assert trackers(source) == {}
        source.wait_for_message("bytes by now")
        track(source)
    world.path("source").unlink()
    make_disk(world.path("source"), SIZE)
    with start(world) as source:
        assert trackers(source) == {}


def test_a_disk_that_grew_while_it_was_served_has_none(world, disks):
    with start(world) as source:
        track(source)
        os.truncate(world.path("source"), SIZE + MIB)
    assert "bytes by now" in source.messages() and not records(world)


def test_several_trackers_of_several_exports_stand_again(world, disks):
    disk = [f"d={world.path('source')}", f"e={world.path('target')}"]
    with world.server(*disk, name="a") as source:
        numbers = {"t": track(source, exclusive=True), "u": track(source, "u", granularity=4096)}
        track(source, "gone")
        assert source.ask("DELETE", "/v1/exports/d/trackers/gone")[0] == 200
        numbers_of_e = {"t": track(source, export="e")}
        write(source, 0, b"1" * 4096)
        assert source.ask("POST", "/v1/exports/d/trackers/t/freeze", {})[0] == 200
        write(source, MIB, b"2" * 4096)
    skip_unless_kept(source)
    assert len(records(world)) == 2
    # Under other names, one after the other, and once more.
    for names in (("x", "y"), ("d", "e")):
        again = [f"{names[0]}={world.path('source')}", f"{names[1]}={world.path('target')}"]
        with world.server(*again, name="a") as source:
            d, e = trackers(source, names[0]), trackers(source, names[1])
            assert {name: each["incarnation"] for name, each in d.items()} == numbers
            assert {name: each["incarnation"] for name, each in e.items()} == numbers_of_e
            assert d["t"]["exclusive"] and not d["u"]["exclusive"]
            assert d["t"]["dirty_bytes"] == 128 * KIB and d["t"]["frozen_bytes"] == 0
            assert d["u"]["dirty_bytes"] == 8 * KIB
            assert e["t"]["dirty_bytes"] == 0
            assert track(source, "new", export=names[0]) not in numbers.values()
            assert source.ask("DELETE", f"/v1/exports/{names[0]}/trackers/new")[0] == 200


def test_writes_that_a_hold_keeps_waiting_at_the_end_are_dirty(world, disks):
    with start(world) as source:
        track(source, granularity=4096)
        source.hold()
        with Wire(source) as client:
            client.go("d")
            client.send(header(WRITE, 8 * KIB, 4 * KIB, cookie=1) + b"h" * 4 * KIB)
            wait_for(lambda: source.in_flight() == 1)
            source.process.send_signal(signal.SIGTERM)
            assert client.simple_reply() == (0, 1)
            assert source.wait() == 0
    skip_unless_kept(source)
    with start(world) as source:
        assert trackers(source)["t"]["dirty_bytes"] == 4 * KIB


def test_a_mirror_waits_for_a_server_whose_end_takes_its_time(world, target):
    with start(world) as source:
        mirror = world.mirror(source.source("d"), target.uri("d"), "--bwlimit", "24M")
        wait_for(lambda: sent(target) > 8 * MIB)
        # A client that does not take its answers.
        with Wire(source) as client:
            client.go("d")
            client.send(b"".join(header(READ, 0, MIB, cookie=n) for n in range(64)))
            wait_for(lambda: source.in_flight() > 0)
            source.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "trying again" in mirror.messages())
            assert source.running()
            source.wait()
    with mirror:
        skip_unless_kept(source)
        with start(world):
            finish(mirror)
    assert "are compared" not in mirror.messages()


def test_a_disk_that_has_moved_away_keeps_none(world, target):
    with start(world, f"e={world.path('source2')},size=1M") as source:
        track(source, "backup")
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            finish(mirror)
        assert "backup" in trackers(source)
    assert records(world) == []
    with start(world, options=["--take-ownership", "d"]) as source:
        assert trackers(source) == {}


def test_trackers_of_a_disk_that_is_taken_back_are_dropped(world, disks):
    """Should a record be there at all: whoever had the disk meanwhile may have written to copies."""
    with start(world) as source:
        track(source)
    skip_unless_kept(source)
    record, = records(world)
    kept = record.read_bytes()
    with start(world, f"e={world.path('source2')},size=1M") as source:
        hold = source.hold()
        assert source.ask("POST", "/v1/exports/d/retire", {"hold": hold, "moved_to": "there"})[0] == 200
    record.write_bytes(kept)
    with start(world, options=["--take-ownership", "d"]) as source:
        assert trackers(source) == {} and records(world) == []


def test_a_state_directory_that_takes_nothing_costs_the_trackers_only(world, disks):
    with start(world) as source:
        track(source)
        world.quick("state").mkdir(exist_ok=True)
        (world.quick("state") / "trackers").write_text("in the way")
        assert source.stop() == 0
    assert re.search("1 tracker not kept.*state/trackers", source.messages())
    with start(world) as source:
        assert trackers(source) == {}


def test_a_server_that_cannot_start_leaves_them_to_one_that_can(world, disks):
    with start(world) as source:
        incarnation = track(source)
    skip_unless_kept(source)
    with pytest.raises(AssertionError):
        start(world, listen=["unix:/nowhere/socket"])
    with start(world) as source:
        assert trackers(source)["t"]["incarnation"] == incarnation


@pytest.mark.parametrize("moment", ["asked to", "writing", "written"])
def test_a_server_killed_while_it_ends_leaves_all_or_nothing(world, disks, moment):
    seen = {"asked to": lambda: True,
            "writing": lambda: records(world),
            "written": lambda: any(each.suffix == ".trackers" for each in records(world))}[moment]
    for step in range(8):
        with start(world) as source:
            track(source, granularity=4096)
            write(source, step * 64 * KIB, bytes([step + 1]) * 4096)
            write(source, SIZE - 4096, bytes([step + 1]) * 4096)
            source.process.send_signal(signal.SIGTERM)
            while source.running() and not seen():
                pass
            source.kill()
        skip_unless_kept(source)
        with start(world) as source:
            standing = trackers(source)
            assert not standing or standing["t"]["dirty_bytes"] == 8 * KIB
            assert standing or moment != "written"
            assert not any(each.suffix == ".trackers" for each in records(world))
            source.kill()


def test_a_large_disk_ends_as_quickly_as_a_small_one(world):
    with open(world.path("large"), "wb") as disk:
        disk.truncate(1 << 40)
    with start(world, disk="large") as source:
        track(source, exclusive=True, all_dirty=True)
        begun = time.monotonic()
        source.stop()
        took = time.monotonic() - begun
    skip_unless_kept(source)
    record, = records(world)
    assert record.stat().st_size < 2 * MIB + KIB
    assert took < 5  # 20 ms; a busy machine may be slow
    with start(world, disk="large") as source:
        assert trackers(source)["t"]["dirty_bytes"] == 1 << 40
