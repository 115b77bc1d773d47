# SPDX-License-Identifier: Apache-2.0
"""What an operator may change while a job runs: `set`, `pause`, `resume`, and the daily window."""

import contextlib
import time

import pytest

from harness import KIB, MIB, ask, background, fio_writer, make_disk, same_content, wait_for
from nbd_client import connect
from peers import Nbdkit

SIZE = 256 * MIB


@pytest.fixture
def pair(world):
    with world.pair(SIZE, [(0, SIZE)]) as both:
        yield both


def moved(mirror):
    return mirror.status()["disks"][0]["moved_bytes"]


def written(server):
    return server.export("d")["written_bytes"]


def arrives_in(server, seconds):
    """Bytes that arrive at the target in so many seconds, and how many those were: at least, and at
    most, since it takes a while to ask."""
    asked = time.monotonic()
    before = written(server)
    begin = time.monotonic()
    # A window of measurement, not a wait for something to have happened.
    with contextlib.suppress(AssertionError):
        wait_for(lambda: False, limit=seconds)
    end = time.monotonic()
    after = written(server)
    return after - before, end - begin, time.monotonic() - asked


def check_rate(server, limit):
    """The limit holds within 5 %; that it is reached a busy machine cannot promise."""
    arrived, _, most = arrives_in(server, 5)
    assert arrived / most <= 1.05 * limit
    assert arrived > 0


def stands_still(server, seconds=1):
    return arrives_in(server, seconds)[0] == 0


def set_limits(world, *options):
    result = world.client("set", "job", *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_bwlimit_holds_from_the_start_and_when_it_is_changed(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "4M") as mirror:
        wait_for(lambda: written(b) > 0)
        check_rate(b, 4 * MIB)
        assert mirror.status()["bwlimit_bytes_per_s"] == 4 * MIB
        set_limits(world, "--bwlimit", "16M")
        check_rate(b, 16 * MIB)
        # What is left would take half an hour now.
        set_limits(world, "--bwlimit", "64K")
        set_limits(world, "--bwlimit", "off")
        assert mirror.status()["bwlimit_bytes_per_s"] is None
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert same_content(world.path("source"), world.path("target"))


def test_progress_counts_what_was_copied_and_not_its_flushes(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "32M", expect=(4,)) as mirror:
        def disk():
            return (mirror.status() or {"disks": [{"sent_bytes": 0}]})["disks"][0]
        # By then the target was flushed some times on the way.
        wait_for(lambda: disk()["sent_bytes"] >= 48 * MIB)
        assert disk()["moved_bytes"] <= disk()["sent_bytes"]
        assert world.client("cancel", "job").returncode == 0


def test_bwlimit_counts_zeroing(world):
    source = make_disk(world.path("source"), SIZE)
    target = make_disk(world.path("target"), SIZE, [(0, SIZE)])
    with world.server(f"d={target}") as b:
        begun = time.monotonic()
        result = world.client("copy", source, b.uri("d"), "--bwlimit", "64M")
        assert result.returncode == 0
        assert time.monotonic() - begun > 3.5  # four seconds, less what may be caught up on
    assert same_content(source, target)


def test_a_limit_that_comes_while_large_holes_are_zeroed_holds_too(world):
    """One request of a gigabyte would be all that is admitted for minutes."""
    size = 32 << 30
    source = make_disk(world.path("source"), size, [(size - MIB, MIB)])
    with world.server(f"d={source}") as a, \
            Nbdkit(world, "memory", str(size), "delay-zero=500ms",
                   filters=("noextents", "delay")) as b, \
            world.mirror(a.source("d"), b.uri, expect=(4,)) as mirror:
        def zeroed():
            return ((mirror.status() or {}).get("disks") or [{"zeroed_bytes": 0}])[0]["zeroed_bytes"]
        wait_for(lambda: zeroed() >= 1 << 30)
        set_limits(world, "--bwlimit", "64M")
        with contextlib.suppress(AssertionError):  # what was under way ends
            wait_for(lambda: False, limit=3)
        before, begin = zeroed(), time.monotonic()
        wait_for(lambda: zeroed() - before >= 128 * MIB, limit=15)
        assert zeroed() - before <= 64 * MIB * (time.monotonic() - begin + 1)
        assert world.client("cancel", "job").returncode == 0
        mirror.wait()


def test_a_paused_job_copies_nothing_and_stays_in_step(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "32M") as mirror:
        wait_for(lambda: written(b) > 0)
        paused = world.client("pause", "job")
        assert "is paused" in paused.stdout and paused.returncode == 0
        assert mirror.status()["paused"] == "operator"
        # What was under way ends: read here, and not yet written there.
        wait_for(lambda: stands_still(b))
        handle = connect(a)
        handle.pwrite(b"n" * MIB, 0)
        assert stands_still(b, 2)
        refused = mirror.cutover()
        assert refused.returncode == 1 and "paused" in refused.stderr
        assert "paused" in world.client("status", "job").stdout
        set_limits(world, "--bwlimit", "off")
        assert world.client("resume", "job").returncode == 0
        assert mirror.status()["paused"] is None
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert same_content(world.path("source"), world.path("target"))


def test_a_cutover_that_is_asked_for_is_seen(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "16M") as mirror:
        mirror.wait_for_phase("copying")
        assert mirror.status()["cutover_asked"] is False
        with background(mirror.cutover) as asked:
            wait_for(lambda: mirror.status()["cutover_asked"])
            assert "a cutover is asked for" in world.client("status", "job").stdout
            assert "comes when it goes on" in world.client("pause", "job").stdout
            set_limits(world, "--bwlimit", "off")
            assert world.client("resume", "job").returncode == 0
        assert asked.result.returncode == 0
        mirror.wait()


def test_a_cutover_whose_mirror_is_killed_says_where_to_look(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "16M") as mirror:
        mirror.wait_for_phase("copying")
        with background(mirror.cutover) as asked:
            wait_for(lambda: mirror.status()["cutover_asked"])
            mirror.kill()
        assert asked.result.returncode == 1
        assert "'nbd-mirror status job' says where guests may write" in asked.result.stderr


def test_a_ready_job_that_is_paused_catches_up_when_it_is_resumed(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        assert world.client("pause", "job").returncode == 0
        handle = connect(a)
        handle.pwrite(b"n" * MIB, 0)
        wait_for(lambda: mirror.status()["disks"][0]["dirty_bytes"] == MIB)
        assert stands_still(b)
        assert world.client("resume", "job").returncode == 0
        wait_for(lambda: mirror.status()["disks"][0]["dirty_bytes"] == 0)
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert same_content(world.path("source"), world.path("target"))


def test_a_ready_job_whose_changes_outgrow_its_limit_says_that_it_catches_up(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "--max-downtime", "500") as mirror:
        mirror.wait_for_phase("ready")
        set_limits(world, "--bwlimit", "1M")
        handle = connect(a)
        for offset in range(0, 64 * MIB, MIB):
            handle.pwrite(b"n" * MIB, offset)
        # Long before the round that copies it is over.
        mirror.wait_for_phase("catching_up", limit=20)
        assert mirror.status()["disks"][0]["dirty_bytes"] > 32 * MIB
        set_limits(world, "--bwlimit", "off", "--max-downtime", "20000")
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert same_content(world.path("source"), world.path("target"))


def test_a_paused_job_can_be_cancelled(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "8M", expect=(4,)) as mirror:
        wait_for(lambda: written(b) > 0)
        assert world.client("pause", "job").returncode == 0
        assert world.client("cancel", "job").returncode == 0
        assert mirror.wait() == 4


def window(first_minute, last_minute):
    """A daily window from so many minutes from now to so many."""
    at = [time.localtime(time.time() + 60 * minute) for minute in (first_minute, last_minute)]
    return "-".join(time.strftime("%H:%M", each) for each in at)


def test_outside_of_its_window_a_job_waits_by_itself(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "--window", window(60, 120)) as mirror:
        wait_for(lambda: (mirror.status() or {}).get("paused") == "window")
        mirror.wait_for_phase("copying")
        assert stands_still(b)
        refused = mirror.cutover()
        assert refused.returncode == 1 and "daily window" in refused.stderr
        assert "outside of its daily window" in world.client("status", "job").stdout
        resumed = world.client("resume", "job")
        assert resumed.returncode == 0 and "waits for its daily window" in resumed.stdout
        # A window that holds now, also when that crosses midnight.
        set_limits(world, "--window", window(-60, 60))
        mirror.wait_for_phase("ready")
        set_limits(world, "--window", window(-120, -60))
        wait_for(lambda: mirror.status()["paused"] == "window")
        set_limits(world, "--window", "off")
        wait_for(lambda: mirror.status()["paused"] is None)
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert same_content(world.path("source"), world.path("target"))


def test_connections_come_and_go_while_it_copies(world, pair):
    a, b = pair

    def writers():
        return sum("write" in each["requests"] for each in b.connections())

    # Half a minute's copy, which must not be over before six have written.
    with world.mirror(a.source("d"), b.uri("d"), "-c", "2", "--bwlimit", "8M") as mirror:
        wait_for(lambda: writers() == 2)
        set_limits(world, "--connections", "6")
        wait_for(lambda: mirror.status()["connections"] == 6)
        wait_for(lambda: writers() == 6)
        set_limits(world, "--connections", "1")
        wait_for(lambda: mirror.status()["connections"] == 1)
        wait_for(lambda: writers() == 1)
        set_limits(world, "--bwlimit", "off", "--connections", "3")
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert same_content(world.path("source"), world.path("target"))


def test_a_connection_that_is_given_up_ends_with_its_last_request(world, pair):
    a, _ = pair
    with Nbdkit(world, "memory", str(SIZE), "wdelay=500ms", filters=["delay"]) as target, \
            world.mirror(a.source("d"), target.uri, "-c", "4", "--requests", "1",
                         "--request-size", "64K", expect=(4,)) as mirror:
        wait_for(lambda: mirror.status() and mirror.status()["disks"][0]["sent_bytes"] > 0)
        # All of them are writing, as nearly always.
        set_limits(world, "--connections", "1")
        wait_for(lambda: mirror.status()["connections"] == 1)
        assert world.client("cancel", "job").returncode == 0


def test_max_downtime_can_be_changed(world, pair):
    a, b = pair
    with fio_writer(world, a.uri("d"), size=SIZE, rate="20m"), \
            world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "200M",
                         "--handover", "release") as mirror:
        mirror.wait_for_phase("ready")
        set_limits(world, "--max-downtime", "60000")
        assert mirror.status()["max_downtime_ms"] == 60000
        assert mirror.cutover().returncode == 0
        mirror.wait()


@pytest.mark.parametrize("body, reason", [
    ({"bwlimit_bytes_per_s": 1}, "bwlimit_bytes_per_s"), ({"window": "now"}, "window"),
    ({"connections": 0}, "connections"), ({"max_downtime_ms": "long"}, "max_downtime_ms"),
    ({"speed": 3}, "'speed'")])
def test_a_limit_that_makes_no_sense_is_refused_and_changes_nothing(world, pair, body, reason):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "-c", "2", "--bwlimit", f"{64 * KIB}",
                      expect=(4,)) as mirror:
        wait_for(lambda: (mirror.status() or {}).get("connections") == 2)
        before = mirror.status()
        status, answer = ask(mirror.control, "PATCH", "/v1/job", body)
        assert status == 400 and reason in answer["error"]
        now = mirror.status()
        assert all(now[key] == before[key] for key in
                   ("bwlimit_bytes_per_s", "window", "connections", "max_downtime_ms"))
        assert world.client("cancel", "job").returncode == 0


def test_a_job_that_does_not_run_cannot_be_told_anything(world):
    for words in (["pause", "job"], ["resume", "job"], ["set", "job", "--bwlimit", "1M"]):
        result = world.client(*words)
        assert result.returncode == 1 and "there is no job 'job'" in result.stderr
