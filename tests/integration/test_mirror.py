# SPDX-License-Identifier: Apache-2.0
"""`nbd-mirror mirror`: the whole job, under a writer, with kills in each phase."""

import json
import os
import re
import signal

import pytest

from harness import KIB, MIB, Writer, ask_all, fio_writer, make_disk, same_content, wait_for
from nbd_client import connect
from peers import Nbdkit, Relay


PHASES = ["preparing", "copying", "catching_up", "ready"]


@pytest.fixture
def pair(world, request):
    """Of a source whose disk the mirror sees, if nothing else is said."""
    with world.pair(96 * MIB + 5 * KIB + 7, [(0, 30 * MIB), (50 * MIB, 20 * MIB)],
                    hidden=getattr(request, "param", "seen") == "hidden") as both:
        yield both


SEEN_OR_NOT = pytest.mark.parametrize("pair", ["seen", "hidden"], indirect=True)


def slow_target(world):
    """An nbdkit that takes its time for each write."""
    nbdkit = Nbdkit(world, "file", world.path("target"), "wdelay=100ms", filters=["delay"])
    # nbdkit 1.32 may die on an assertion when its client is killed.
    nbdkit.expect = (0, -signal.SIGABRT)
    return nbdkit


@SEEN_OR_NOT
def test_a_disk_moves_while_it_is_written(world, pair):
    source, target = pair
    with Writer(world, source) as writer:
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            mirror.wait_for_phase("ready")
            count = writer.count
            wait_for(lambda: writer.count > count + 50)
            assert mirror.phase() in ("ready", "catching_up")
            assert writer.error is None
            result = mirror.cutover()
            assert result.returncode == 0, result.stderr
            line = result.stdout.strip()
            assert re.fullmatch(r"cut over: downtime \d+ ms", line)
            assert mirror.wait() == 0
            assert mirror.output.strip().splitlines()[-1] == line
        writer.join(60)
        assert writer.error.errnum == 108  # ESHUTDOWN
    assert world.path("target").read_bytes() == bytes(writer.shadow)
    assert same_content(world.path("source"), world.path("target"))
    status = json.loads(world.client("status", "job", "--json").stdout)
    assert status["phase"] == "done" and status["downtime_ms"] is not None
    assert source.export("d")["state"] == "retired"


@SEEN_OR_NOT
@pytest.mark.parametrize("seed", range(3))
def test_fio_sees_no_error_before_the_hand_over_and_shutdown_after_it(world, pair, seed):
    source, target = pair
    with fio_writer(world, source.uri("d"), size=96 * MIB, seed=seed) as fio:
        wait_for(lambda: source.export("d")["written_bytes"] > 0)
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            mirror.wait_for_phase("ready")
            assert fio.running()
            assert mirror.cutover().returncode == 0
            mirror.wait()
        fio.wait()
        errors = set(re.findall(r"io_u error on file \S+ ([^:]*)", fio.messages() + fio.output))
        assert errors == {"Cannot send after transport endpoint shutdown"}
    assert same_content(world.path("source"), world.path("target"))


def test_cancel_leaves_the_source_in_service(world, pair):
    source, target = pair
    with Writer(world, source) as writer:
        with world.mirror(source.source("d"), target.uri("d"), expect=(4,)) as mirror:
            mirror.wait_for_phase("ready")
            assert world.client("cancel", "job").returncode == 0
            assert mirror.wait() == 4
        count = writer.count
        wait_for(lambda: writer.count > count + 20)
        assert writer.error is None
    assert source.export("d")["trackers"] == []
    assert json.loads(world.client("status", "job", "--json").stdout)["phase"] == "cancelled"


@pytest.mark.parametrize("phase", PHASES)
def test_a_mirror_killed_in_any_phase_costs_the_writer_nothing(world, pair, phase):
    source, target = pair
    with slow_target(world) as slow, Writer(world, source, area=2 * MIB) as writer:
        if phase == "preparing":  # which ends when the target has answered
            os.kill(slow.pid, signal.SIGSTOP)
        # 50 MiB: a minute's copy, where that is not to be over before it is seen.
        pace = ["--bwlimit", "1M"] if phase == "copying" else []
        with world.mirror(source.source("d"), slow.uri, *pace) as mirror:
            mirror.wait_for_phase(*PHASES[PHASES.index(phase):])
            mirror.kill()
        os.kill(slow.pid, signal.SIGCONT)
        # What the writer meets now is the mirror's death and nothing else.
        count = writer.count
        wait_for(lambda: writer.count > count + 20)
        assert writer.error is None
        assert writer.longest < 5  # nobody has held it
        answer = json.loads(world.client("status", "job", "--json").stdout)
        assert answer["phase"] == "failed"
        # It was killed there or, catching up being short, right behind it.
        there = phase.replace("catching_up", "(catching_up|ready)")
        assert re.search(f"ended while {there};", answer["error"])
        # The name and the tracker that it left are free for the next one.
        with world.mirror(source.source("d"), target.uri("d"), "--cutover", "auto") as again:
            assert again.wait() == 0
        writer.join(60)
    assert world.path("target").read_bytes() == bytes(writer.shadow)


def test_what_a_killed_mirror_left_unread_at_the_target_does_not_land_later(world, pair):
    a, b = pair
    hold = b.hold()
    # More writes than the server takes from one connection: some are unread in the socket.
    many = ["--connections", "1", "--requests", "256", "--request-size", "4K"]
    with world.mirror(a.source("d"), b.uri("d"), *many) as mirror:
        wait_for(lambda: b.in_flight() == 128)
        mirror.kill()
    handle = connect(a)
    for offset in range(0, 30 * MIB, 2 * MIB):
        handle.pwrite(b"n" * (2 * MIB), offset)
    with world.mirror(a.source("d"), b.uri("d")) as mirror:
        # The dead one's connection has ended by itself, or was ended by this one.
        mirror.wait_for_phase("copying")
        b.release(hold)
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 0
    assert same_content(world.path("source"), world.path("target"))


def test_a_lost_target_fails_the_job_and_not_the_writer(world, pair):
    source, target = pair
    with Writer(world, source) as writer:
        with world.mirror(source.source("d"), target.uri("d"), "--reconnect-timeout", "1",
                          expect=(1,)) as mirror:
            mirror.wait_for_phase("ready")
            target.kill()
            assert mirror.wait() == 1
        warning, error = mirror.messages().splitlines()
        assert "trying again" in warning
        assert "given up after 1 s" in error and "--resume --job job" in error
        count = writer.count
        wait_for(lambda: writer.count > count + 20)
    assert writer.error is None


@pytest.mark.parametrize("which", range(4))
def test_an_idle_connection_that_was_lost_is_made_again_before_the_hold(world, pair, which):
    source, target = pair
    with Relay(world, target) as relay, \
            world.mirror(source.source("d"), relay.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        wait_for(lambda: len(relay.clients) == 4)
        relay.end(relay.clients[which])
        handle = connect(source)
        handle.pwrite(b"n" * MIB, 0)
        # Or a round was under way, which has met it.
        wait_for(lambda: "was lost" in mirror.messages() or "connected again" in mirror.messages())
        wait_for(lambda: len(relay.clients) == 4)
        assert mirror.cutover().returncode == 0
        assert "not cut over" not in mirror.messages()
    assert same_content(world.path("source"), world.path("target"))


def test_a_target_that_died_is_noticed_though_nothing_is_written(world, pair):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d"), "--reconnect-timeout", "1",
                      expect=(1,)) as mirror:
        mirror.wait_for_phase("ready")
        target.kill()
        result = mirror.cutover()
        assert result.returncode == 1
        assert mirror.wait() == 1
    assert source.export("d")["state"] == "serving"


def test_a_path_of_the_job_says_which_methods_it_takes(world, pair):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d"), expect=(4,)) as mirror:
        mirror.wait_for_phase("ready")
        for path, takes in (("/v1/job", "GET, PATCH"), ("/v1/job/cutover", "POST"),
                            ("/v1/job/pause", "POST"), ("/v1/job/resume", "POST"),
                            ("/v1/job/cancel", "POST"), ("/metrics", "GET")):
            for method in {"GET", "PUT", "POST", "DELETE", "PATCH"} - set(takes.split(", ")):
                status, answer, headers = ask_all(mirror.control, method, path)
                assert status == 405 and headers["Allow"] == takes
                assert answer == {"error": f"this path does not take {method}; it takes {takes}"}
        for path in ("/", "/v1", "/v1/jobs", "/v1/job/", "/v1/job/pivot", "/v1/job/pause/x"):
            for method in ("GET", "POST"):
                assert ask_all(mirror.control, method, path)[0] == 404
        assert mirror.phase() == "ready" and mirror.status()["paused"] is None
        assert "nbd_mirror_job_phase" in ask_all(mirror.control, "GET", "/metrics")[1]
        world.client("cancel", "job")
        mirror.wait()


def test_a_mirror_that_cannot_begin_leaves_what_is_known_of_the_last_one(world, pair):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d"), "--cutover", "auto") as mirror:
        assert mirror.wait() == 0
    told = world.client("status", "job").stdout
    assert "done" in told and "guests may write at the target" in told
    again = world.client("mirror", source.source("d"), target.uri("d"), "--job", "job")
    assert again.returncode == 1
    assert f"has moved away already, to {target.uri('d')}, at 20" in again.stderr
    assert world.client("status", "job").stdout == told
    resumed = world.client("mirror", "--resume", "--job", "job")
    assert resumed.returncode == 1 and "job 'job' has ended: done" in resumed.stderr
    assert world.client("status", "job").stdout == told
    # Of one that has never begun, the last failure is what is told.
    for missing in ("one", "two"):
        world.client("mirror", source.source(missing), target.uri("d"), "--job", "new")
        assert f"'{missing}'" in world.client("status", "new").stdout


def test_two_mirrors_of_one_name_are_refused(world, pair):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d"), expect=(4,)) as mirror:
        mirror.wait_for_phase("ready")
        result = world.client("mirror", source.source("d"), target.uri("d"), "--job", "job")
        assert result.returncode == 1 and "job 'job' runs already" in result.stderr
        assert mirror.running()
        world.client("cancel", "job")
        mirror.wait()


def test_a_second_mirror_of_a_disk_is_refused_and_the_first_loses_nothing(world, pair):
    # Another runtime directory, and the same name: as with two units of a service manager.
    source, target = pair
    other = make_disk(world.path("other"), source.export("d")["size_bytes"])
    with Writer(world, source) as writer, world.server(f"d={other}") as second:
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            mirror.wait_for_phase("ready")
            for job in ("job", "another"):
                world.env["NBD_MIRROR_RUNTIME_DIR"] = str(world.quick("other-run"))
                result = world.client("mirror", source.source("d"), second.uri("d"), "--job", job)
                world.env["NBD_MIRROR_RUNTIME_DIR"] = str(world.quick("run"))
                assert result.returncode == 1
                assert "is being mirrored already, by job 'job'" in result.stderr
            assert mirror.cutover().returncode == 0
            mirror.wait()
        writer.join(60)
    assert world.path("target").read_bytes() == bytes(writer.shadow)


@pytest.mark.parametrize("phase", ["copying", "ready"])
def test_a_tracker_that_was_replaced_ends_its_mirror(world, pair, phase):
    source, target = pair
    with Writer(world, source, area=2 * MIB) as writer:
        # 50 MiB in five seconds, where that is not to be over before it is seen.
        pace = ["--bwlimit", "10M"] if phase == "copying" else []
        with world.mirror(source.source("d"), target.uri("d"), *pace, expect=(1,)) as mirror:
            mirror.wait_for_phase(phase)
            source.ask("DELETE", "/v1/exports/d/trackers/mirror.job")
            source.ask("PUT", "/v1/exports/d/trackers/mirror.job", {})
            assert mirror.wait() == 1
            # As it is found out before, between or after the two.
            assert re.search("another one by now|tracker .* was removed|has no tracker",
                             mirror.messages())
        assert writer.error is None
    # What is not this mirror's is left alone.
    assert [each["name"] for each in source.export("d")["trackers"]] == ["mirror.job"]


def test_a_mirror_onto_its_own_source_is_refused_by_whatever_name(world, pair):
    source, _ = pair
    for uri in (source.uri("d"), source.uri("d", tcp=True), f"nbd://localhost:{source.port}/d",
                f"nbd://[::ffff:127.0.0.1]:{source.port}/d", world.path("source")):
        result = world.client("mirror", source.source("d"), uri)
        assert result.returncode == 1 and "is the source itself" in result.stderr


def test_a_mirror_of_a_disk_that_another_job_has_moved_ends(world, pair):
    source, target = pair
    with world.mirror(source.source("d"), target.uri("d"), expect=(1,)) as mirror:
        mirror.wait_for_phase("ready")
        held = source.hold()
        assert source.ask("POST", "/v1/exports/d/retire", {"hold": held})[0] == 200
        assert mirror.wait() == 1
        mirror.wait_for_message("has moved away")


def test_a_target_that_cannot_take_the_disk_is_refused_before_it_is_touched(world, pair):
    source, _ = pair
    small = make_disk(world.path("small"), MIB, [(0, 512)], seed=5)
    before = small.read_bytes()
    with world.server(f"d={small}") as server:
        result = world.client("mirror", source.source("d"), server.uri("d"))
        assert result.returncode == 1 and "too small" in result.stderr
    result = world.client("mirror", source.source("d"), source.uri("d"))
    assert result.returncode == 1 and "source itself" in result.stderr
    result = world.client("mirror", source.source("d"), world.path("source"))
    assert result.returncode == 1 and "source itself" in result.stderr
    assert small.read_bytes() == before
    assert source.export("d")["trackers"] == []


def test_progress_is_json_lines_with_every_phase(world, pair):
    source, target = pair
    result = world.client("mirror", source.source("d"), target.uri("d"), "--cutover", "auto",
                          "--progress", "json")
    assert result.returncode == 0
    *lines, last = result.stdout.splitlines()
    assert last.startswith("cut over: downtime ")
    states = [json.loads(line) for line in lines]
    phases = list(dict.fromkeys(each["phase"] for each in states))
    assert phases == ["copying", "catching_up", "ready", "cutting_over", "done"]
    moved = [each["disks"][0]["moved_bytes"] for each in states]
    assert moved == sorted(moved)
    assert states[-1]["disks"][0]["moved_bytes"] <= states[-1]["disks"][0]["total_bytes"]
