# SPDX-License-Identifier: Apache-2.0
"""A mirror that died, or lost a server, goes on with what was not durable and what changed since."""

import json
import os
import random
import signal

import pytest

from harness import KIB, MIB, World, make_disk, same_content, wait_for
from nbd_client import write
from peers import CutAtFlush


SIZE = 256 * MIB
DATA = 96 * MIB


@pytest.fixture
def disks(world):
    make_disk(world.path("source"), SIZE, [(0, 64 * MIB), (SIZE - 32 * MIB, 32 * MIB)])
    make_disk(world.path("target"), SIZE)


@pytest.fixture
def source(world, disks):
    with world.server(f"d={world.path('source')}", name="a") as server:
        yield server


@pytest.fixture
def target(world, disks):
    with world.server(f"d={world.path('target')}", name="b") as server:
        yield server


def resume(world, *options, job="job", expect=(0,)):
    return world.mirror(None, None, "--resume", *options, job=job, expect=expect)


def finish(mirror):
    mirror.wait_for_phase("ready")
    assert mirror.cutover().returncode == 0
    mirror.wait()


def sent(server):
    return server.export("d")["written_bytes"]


def test_a_mirror_killed_twenty_times_sends_little_more_than_the_data(world, source, target):
    chance = random.Random(4)
    done = 0
    options = ["--bwlimit", "64M", "--requests", "4"]
    mirror = world.mirror(source.source("d"), target.uri("d"), *options)
    for _ in range(20):
        with mirror:
            before = done
            step = chance.randrange(DATA // 20)
            wait_for(lambda: sent(target) >= min(before + step, DATA) or
                     mirror.phase() == "ready")
            done = sent(target)
            mirror.kill()
        mirror = resume(world, *options)
    with mirror:
        finish(mirror)
    assert same_content(world.path("source"), world.path("target"))
    # Eight MiB between flushes, and what is under way: with this little data much, so that only a
    # mirror that began anew each time is told from one that does not.
    assert sent(target) < 4 * DATA


def test_only_what_was_not_durable_and_what_changed_is_sent(world, source, target):
    with world.mirror(source.source("d"), target.uri("d"), "--bwlimit", "32M") as mirror:
        wait_for(lambda: sent(target) > 48 * MIB)
        mirror.kill()
    before = sent(target)
    write(source, MIB, b"n" * (64 * KIB))
    with resume(world) as mirror:
        finish(mirror)
    assert same_content(world.path("source"), world.path("target"))
    # What 4 x 16 requests of 256 KiB and 8 MiB between two flushes may have lost.
    assert sent(target) - before < DATA - 48 * MIB + 32 * MIB


def test_a_mirror_killed_when_it_was_ready_sends_the_delta(world, source, target):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    before = sent(target)
    write(source, 100 * MIB, b"n" * MIB)
    status = json.loads(world.client("status", "job", "--json").stdout)
    assert status["phase"] == "failed" and "--resume" in status["error"]
    with resume(world) as mirror:
        finish(mirror)
    assert sent(target) - before == MIB
    assert same_content(world.path("source"), world.path("target"))


def test_beginning_anew_says_that_the_killed_mirror_could_be_resumed(world, source, target):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    result = world.client("cutover", "job")
    assert result.returncode == 1 and "'nbd-mirror mirror --resume --job job'" in result.stderr
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_message("'nbd-mirror mirror --resume --job job' would have gone on")
        finish(mirror)
    assert same_content(world.path("source"), world.path("target"))


@pytest.mark.parametrize("moment", ["copying", "ready"])
def test_a_target_server_that_comes_back_is_connected_to_again(world, source, disks, moment):
    with world.server(f"d={world.path('target')}", name="b") as target:
        uri = target.uri("d")
        limit = ["--bwlimit", "32M"] if moment == "copying" else []
        mirror = world.mirror(source.source("d"), uri, *limit)
        mirror.wait_for_phase(moment)
        if moment == "copying":
            wait_for(lambda: sent(target) > 16 * MIB)
        target.kill()
    with mirror:
        write(source, 100 * MIB, b"n" * MIB)
        wait_for(lambda: "trying again" in ((mirror.status() or {}).get("error") or ""))
        with world.server(f"d={world.path('target')}", name="b"):
            wait_for(lambda: mirror.status()["error"] is None)
            finish(mirror)
    assert same_content(world.path("source"), world.path("target"))


def test_each_loss_of_a_connection_has_its_own_time(world, source, disks):
    with world.server(f"d={world.path('target')}", name="b") as target:
        uri = target.uri("d")
        mirror = world.mirror(source.source("d"), uri, "--bwlimit", "16M", "--reconnect-timeout",
                              "2")
        wait_for(lambda: sent(target) > 8 * MIB)
        target.kill()
    with mirror:
        for _ in range(2):
            with world.server(f"d={world.path('target')}", name="b") as target:
                # For longer than one loss may last.
                wait_for(lambda: sent(target) > 40 * MIB)
                target.kill()
        with world.server(f"d={world.path('target')}", name="b"):
            finish(mirror)
    assert mirror.messages().count("trying again") == 3
    assert same_content(world.path("source"), world.path("target"))


def test_connections_over_which_nothing_becomes_durable_are_given_up(world, source, target):
    with CutAtFlush(world, target) as cut, \
            world.mirror(source.source("d"), cut.uri("d"), "--bwlimit", "32M", "--reconnect-timeout",
                         "3", expect=(1,)) as mirror:
        assert mirror.wait() == 1
        assert "given up after 3 s" in mirror.messages()
        # Each of them has done something.
        lost = mirror.messages().count("trying again")
        assert lost >= 2 and sent(target) > 0
        assert source.export("d")["state"] == "serving"


def test_after_a_crash_of_the_source_server_only_what_differs_is_sent(world, target, disks):
    with world.server(f"d={world.path('source')}", name="a") as source:
        mirror = world.mirror(source.source("d"), target.uri("d"))
        mirror.wait_for_phase("ready")
        # Writes that no mirror has seen, and the server dies with what it knows of them.
        os.kill(mirror.pid, signal.SIGSTOP)
        write(source, 3 * MIB, b"n" * (128 * KIB))
        write(source, 120 * MIB, b"n" * (64 * KIB))
        source.kill()
    before = sent(target)
    with mirror, world.server(f"d={world.path('source')}", name="a") as source:
        os.kill(mirror.pid, signal.SIGCONT)
        wait_for(lambda: "nobody knows what was written since" in mirror.messages())
        finish(mirror)
    assert same_content(world.path("source"), world.path("target"))
    assert sent(target) - before == 192 * KIB


def test_a_resumed_mirror_compares_when_its_tracker_is_gone(world, source, target):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    before = sent(target)
    assert source.ask("DELETE", "/v1/exports/d/trackers/mirror.job")[0] == 200
    write(source, 0, bytes(MIB))
    with resume(world) as mirror:
        finish(mirror)
    mirror.wait_for_message("are compared")
    assert sent(target) - before == MIB  # zeroed
    assert same_content(world.path("source"), world.path("target"))


@pytest.mark.parametrize("killed", ["the target's server", "the mirror"])
def test_a_target_that_is_another_disk_by_now_is_compared(world, source, disks, killed):
    """As when its file system was not mounted, and the server made a new file."""
    with world.server(f"d={world.path('target')}", name="b") as target:
        mirror = world.mirror(source.source("d"), target.uri("d"))
        mirror.wait_for_phase("ready")
        if killed == "the mirror":
            mirror.kill()
        target.kill()
    world.path("target").rename(world.path("kept"))
    with world.server(f"d={world.path('target')},size={SIZE}", name="b") as target:
        if killed == "the mirror":
            mirror = resume(world)
        with mirror:
            mirror.wait_for_message("is another disk by now")
            finish(mirror)
        assert sent(target) >= DATA
    assert same_content(world.path("source"), world.path("target"))


def test_a_path_that_leads_to_another_disk_by_now_is_compared(world, source):
    with world.mirror(source.source("d"), world.path("target")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    # The same disk, wherever it is.
    with resume(world) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    assert "compared" not in mirror.messages()
    world.path("target").rename(world.path("kept"))
    make_disk(world.path("target"), SIZE)
    with resume(world) as mirror:
        mirror.wait_for_message("is another disk by now")
        finish(mirror)
    assert same_content(world.path("source"), world.path("target"))


def test_a_target_that_another_mirror_has_filled_meanwhile_is_compared(world, source, target):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    other = make_disk(world.path("other"), SIZE, [(0, MIB)], seed=9)
    with world.server(f"d={other}", name="c") as second, \
            world.mirror(second.source("d"), target.uri("d"), job="other", expect=(4,)) as another:
        another.wait_for_phase("ready")
        assert world.client("cancel", "other").returncode == 0
        another.wait()
    with resume(world) as mirror:
        mirror.wait_for_message("another mirror has filled it")
        finish(mirror)
    assert same_content(world.path("source"), world.path("target"))


@pytest.mark.parametrize("incoming", ["", ",incoming"])
def test_mirrors_of_two_hosts_do_not_fill_one_target_whatever_their_jobs_are_called(world, source,
                                                                                    incoming):
    make_disk(world.path("target"), SIZE)
    world.path("elsewhere").mkdir()
    elsewhere = World(world.path("elsewhere"))
    other = make_disk(world.path("other"), SIZE, [(0, MIB)], seed=9)
    with world.server(f"d={world.path('target')}{incoming}", name="b",
                      options=["--state-dir", world.quick("b-state")]) as target, \
            elsewhere.server(f"d={other}", name="c") as second, \
            world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        refused = elsewhere.client("mirror", second.source("d"), target.uri("d"), "--job", "job",
                                   "--reconnect-timeout", "0")
        assert refused.returncode == 1
        assert "another mirror fills this export" in target.messages() + refused.stderr
        finish(mirror)
    assert "trying again" not in mirror.messages()
    assert same_content(world.path("source"), world.path("target"))


def test_a_mirror_that_died_after_the_hand_over_has_nothing_left_to_do(world, source, target):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        # As if it had died between the retire and its answer.
        os.kill(mirror.pid, signal.SIGSTOP)
        hold = source.hold()
        status, _ = source.ask("POST", "/v1/exports/d/retire",
                               {"hold": hold, "moved_to": target.uri("d"), "job": "job"})
        assert status == 200
        mirror.kill()
    moved = source.export("d")["moved"]
    assert (moved["to"], moved["job"]) == (target.uri("d"), "job")
    with resume(world) as mirror:
        assert mirror.wait() == 0
    assert "cut over" in mirror.output
    assert json.loads(world.client("status", "job", "--json").stdout)["phase"] == "done"


@pytest.mark.parametrize("incoming", ["", ",incoming"])
def test_a_disk_that_has_moved_elsewhere_is_not_said_to_be_at_the_target(world, source, incoming):
    """Another job of that name may have moved it, where nothing was known of this one."""
    make_disk(world.path("target"), SIZE)
    with world.server(f"d={world.path('target')}{incoming}", name="b",
                      options=["--state-dir", world.quick("b-state")]) as target:
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            mirror.wait_for_phase("ready")
            mirror.kill()
        hold = source.hold()
        assert source.ask("POST", "/v1/exports/d/retire",
                          {"hold": hold, "moved_to": "there", "job": "job"})[0] == 200
        with resume(world, expect=(1,) if incoming else (0,)) as mirror:
            mirror.wait()
        if incoming:
            assert "has moved to there, not to" in mirror.messages()
            assert "--resume" not in mirror.messages()
            assert target.export("d")["state"] == "incoming"
        else:
            assert "had moved to there" in mirror.output
            assert json.loads(world.client("status", "job", "--json").stdout)["owner"] == "unknown"


@pytest.mark.parametrize("end", ["cancelled", "done"])
def test_a_job_that_ended_cannot_be_resumed(world, source, target, end):
    status = 4 if end == "cancelled" else 0
    with world.mirror(source.source("d"), target.uri("d"), expect=(status,)) as mirror:
        mirror.wait_for_phase("ready")
        assert world.client("cancel" if end == "cancelled" else "cutover", "job").returncode == 0
        mirror.wait()
    with resume(world, expect=(1,)) as mirror:
        assert mirror.wait() == 1
    mirror.wait_for_message("nothing to resume")
    assert source.export("d")["trackers"] == []


def test_a_job_is_resumed_with_its_own_disks_only(world, source, target):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    with world.mirror(source.source("d"), world.path("other"), "--resume", expect=(1,)) as mirror:
        assert mirror.wait() == 1
    assert "mirrors" in mirror.messages() and str(world.path("other")) in mirror.messages()
    result = world.client("mirror", "--resume")
    assert result.returncode == 2 and "--job" in result.stderr


def test_copy_delta_sends_only_what_differs(world, disks):
    target = world.path("target")
    with open(world.path("source"), "rb") as left, open(target, "r+b") as right:
        right.write(left.read(SIZE))
        for offset in (0, 5 * MIB, SIZE - 4096):
            right.seek(offset)
            right.write(b"?" * 4096)
        right.seek(100 * MIB)
        right.write(b"?" * MIB)
    result = world.client("copy", "--delta", "--progress", "json", world.path("source"), target)
    assert result.returncode == 0, result.stderr
    assert same_content(world.path("source"), target)
    last = json.loads(result.stdout.splitlines()[-1])["disks"][0]
    assert last["sent_bytes"] == 3 * 4096
