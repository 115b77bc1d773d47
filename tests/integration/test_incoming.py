# SPDX-License-Identifier: Apache-2.0
"""A disk that a mirror brings to an incoming export: nobody else uses it until it has landed, and
then only its guest does."""

import contextlib
import json
import os
import signal
import subprocess

import pytest

from harness import MIB, background, content, make_disk, need, same_content, wait_for
from nbd_client import connect, nbd


SIZE = 32 * MIB


@pytest.fixture
def source(world):
    make_disk(world.path("source"), SIZE, [(0, 12 * MIB)])
    with world.server(f"d={world.path('source')}", name="source-server") as server:
        yield server


@pytest.fixture
def target(world):
    make_disk(world.path("target"), SIZE)
    with landing_place(world) as server:
        yield server


def landing_place(world, more=",incoming", state="target-state"):
    return world.server(f"d={world.path('target')}{more}", name="target-server",
                        options=["--state-dir", world.quick(state)])


def state(server):
    return server.export("d")["state"]


def owner(world, job="job"):
    return json.loads(world.client("status", job, "--json").stdout)["owner"]


def connections(server):
    return len(server.ask("GET", "/v1/connections")[1]["connections"])


def wait_for_waiting(server):
    wait_for(lambda: "a client waits until the disk has landed" in server.messages())


def test_a_guest_waits_until_the_disk_has_landed(world, source, target):
    with background(lambda: connect(target).pread(MIB, 0)) as guest:
        wait_for_waiting(target)
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            mirror.wait_for_phase("ready")
            assert (state(source), state(target)) == ("serving", "incoming")
            assert owner(world) == "source" and guest.result is None
            assert mirror.cutover().returncode == 0
            assert mirror.wait() == 0
    assert guest.result == content(world.path("source"), 0, MIB)
    assert (state(source), state(target)) == ("retired", "serving")
    assert owner(world) == "target"
    assert "guests may write at the target" in world.client("status", "job").stdout
    assert same_content(world.path("source"), world.path("target"))
    connect(target).pwrite(b"g" * 512, 0)


def test_what_may_be_asked_while_the_disk_is_on_its_way(world, target):
    asker = nbd.NBD()
    asker.set_opt_mode(True)
    asker.connect_uri(target.uri("d"))
    names = []
    asker.opt_list(lambda name, _: names.append(name) or 0)
    assert names == ["d"]
    asker.opt_info()
    assert asker.get_size() == SIZE
    asker.opt_abort()
    assert 'nbd_mirror_export_incoming{export="d"} 1' in target.ask("GET", "/metrics")[1]
    status, answer = target.ask("POST", "/v1/exports/d/hold", {})
    assert status == 409 and "incoming" in answer["error"]


def test_who_waits_may_leave_and_does_not_keep_the_server_from_stopping(world):
    make_disk(world.path("target"), SIZE)
    with landing_place(world) as target:
        guests = [subprocess.Popen(["nbdinfo", target.uri("d")], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL) for _ in range(2)]
        wait_for(lambda: target.messages().count("a client waits") == 2)
        assert connections(target) == 2
        guests[0].kill()
        guests[0].wait()
        wait_for(lambda: connections(target) == 1)
        target.stop()
        assert guests[1].wait(60) != 0


def test_who_waits_does_not_take_the_mirrors_place(world, source):
    make_disk(world.path("target"), SIZE)
    with world.server(f"d={world.path('target')},incoming", name="target-server",
                      options=["--max-connections", "8"]) as target:
        with contextlib.ExitStack() as guests:
            for _ in range(8):
                guest = subprocess.Popen(["nbdinfo", target.uri("d")], stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
                guests.callback(guest.wait)
                guests.callback(guest.kill)
            wait_for(lambda: target.messages().count("wait for a disk to land already") == 4)
            with world.mirror(source.source("d"), target.uri("d"), "-c", "2", "--cutover",
                              "auto") as mirror:
                assert mirror.wait() == 0
    assert same_content(world.path("source"), world.path("target"))


def test_a_disk_that_has_landed_stays_so_and_no_mirror_gets_at_it(world, source, target):
    with world.mirror(source.source("d"), target.uri("d"), "--cutover", "auto") as mirror:
        assert mirror.wait() == 0
    other = make_disk(world.path("other"), SIZE)
    target.stop()
    with landing_place(world) as target, world.server(f"d={other}", name="other-server") as second:
        target.wait_for_message("has landed already")
        connect(target).pwrite(b"g" * 512, 0)
        result = world.client("mirror", second.source("d"), target.uri("d"), "--job", "next",
                              "--reconnect-timeout", "0")
        assert result.returncode == 1 and "the server's log says why" in result.stderr
        target.wait_for_message("belongs to its guest")
        # It may have missed the answer to its commit; nobody else hands over what has landed.
        record, = (world.quick("target-state") / "arrived").glob("*.json")
        session = json.loads(record.read_text())["job"]
        assert session.startswith("job-")
        connect(target, f"nbd-mirror:commit:{session}:1")
        with pytest.raises(nbd.Error):
            connect(target, "nbd-mirror:commit:next:1")
        assert content(world.path("target"), 0, 512) == b"g" * 512


def test_a_mirror_that_died_behind_the_retirement_tells_the_target_when_resumed(world, source,
                                                                                target):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        os.kill(mirror.pid, signal.SIGSTOP)
        hold = source.hold()
        assert source.ask("POST", "/v1/exports/d/retire", {"hold": hold, "job": "job"})[0] == 200
        mirror.kill()
    assert (state(source), state(target)) == ("retired", "incoming")
    with world.mirror(None, None, "--resume") as mirror:
        assert mirror.wait() == 0
    assert state(target) == "serving" and owner(world) == "target"


def die_behind_the_retirement(source, mirror):
    mirror.wait_for_phase("ready")
    os.kill(mirror.pid, signal.SIGSTOP)
    hold = source.hold()
    assert source.ask("POST", "/v1/exports/d/retire", {"hold": hold, "job": "job"})[0] == 200
    mirror.kill()


@pytest.mark.parametrize("how", ["command", "signal"])
def test_a_mirror_that_is_cancelled_before_the_target_was_told_can_be_resumed(world, source, target,
                                                                              how):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        die_behind_the_retirement(source, mirror)
    target.stop()
    with world.mirror(None, None, "--resume", expect=(1,)) as mirror:
        mirror.wait_for_message("the target was not told")
        if how == "command":
            world.client("cancel", "job")
        else:
            os.kill(mirror.pid, signal.SIGINT)
        assert mirror.wait(limit=20) == 1
    assert "--resume" in mirror.messages() and owner(world) == "nobody"
    with landing_place(world) as target, world.mirror(None, None, "--resume") as mirror:
        assert mirror.wait() == 0
        assert state(target) == "serving" and owner(world) == "target"


def test_a_target_whose_places_are_taken_is_told_when_the_mirror_leaves(world, source):
    make_disk(world.path("target"), SIZE)
    with world.server(f"d={world.path('target')},incoming", name="target-server",
                      options=["--state-dir", world.quick("target-state"), "--max-connections",
                               "4"]) as target, contextlib.ExitStack() as guests:
        with world.mirror(source.source("d"), target.uri("d"), "-c", "2") as mirror:
            mirror.wait_for_phase("ready")
            free = 4 - connections(target)
            assert free > 0
            for _ in range(free):
                guests.enter_context(background(lambda: connect(target).pread(512, 0)))
            wait_for(lambda: connections(target) == 4)
            assert mirror.cutover().returncode == 0
            assert mirror.wait(limit=30) == 0
        target.wait_for_message("is turned away")
        assert state(target) == "serving" and owner(world) == "target"


def test_a_source_that_does_not_serve_the_disk_any_more_has_not_taken_it_back(world, target):
    make_disk(world.path("source"), SIZE, [(0, MIB)])
    with world.server(f"d={world.path('source')}", name="source-server") as source:
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            die_behind_the_retirement(source, mirror)
        target.stop()
        with world.mirror(None, None, "--resume") as mirror:
            mirror.wait_for_message("the target was not told")
            source.stop()
            other = make_disk(world.path("other"), MIB)
            with world.server(f"e={other}", name="source-server"), landing_place(world) as target:
                assert mirror.wait() == 0
                assert state(target) == "serving" and owner(world) == "target"


def test_a_landing_whose_answer_was_lost_is_no_failure(world, source, target):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        die_behind_the_retirement(source, mirror)
    record = json.loads((world.quick("state") / "jobs" / "job.record").read_text())
    for kind in ("session", "commit"):
        epoch = record["epoch"] + 1
        connect(target, f"nbd-mirror:{kind}:{record['session']}:{epoch}").shutdown()
    assert state(target) == "serving"
    with world.mirror(None, None, "--resume") as mirror:
        assert mirror.wait() == 0
    assert owner(world) == "target"


def test_no_other_disk_is_taken_for_the_copy_that_has_landed(world, source):
    place = f"{world.path('target')},size={SIZE},incoming"
    options = ["--state-dir", world.quick("target-state")]
    with world.server(f"d={place}", name="target-server", options=options) as target, \
            world.mirror(source.source("d"), target.uri("d")) as mirror:
        die_behind_the_retirement(source, mirror)
    # As when the file system with the copy is not mounted.
    world.path("target").rename(world.path("copy"))
    with world.server(f"d={place}", name="target-server", options=options) as target:
        with world.mirror(None, None, "--resume", expect=(1,)) as mirror:
            assert mirror.wait() == 1
        mirror.wait_for_message("is another disk by now")
        assert state(target) == "incoming" and owner(world) == "nobody"
    world.path("copy").rename(world.path("target"))
    with world.server(f"d={place}", name="target-server", options=options) as target:
        with world.mirror(None, None, "--resume") as mirror:
            assert mirror.wait() == 0
        assert state(target) == "serving" and owner(world) == "target"


def test_a_copy_that_another_mirror_has_overwritten_does_not_land(world, source, target):
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        die_behind_the_retirement(source, mirror)
    other = connect(target, "nbd-mirror:session:other:1")
    other.pwrite(b"o" * 512, 0)
    other.shutdown()
    with world.mirror(None, None, "--resume", expect=(1,)) as mirror:
        assert mirror.wait() == 1
    mirror.wait_for_message("another mirror has filled it")
    assert state(target) == "incoming"
    with pytest.raises(nbd.Error):  # nor without looking
        connect(target, "nbd-mirror:commit:another:9")
    # The server forgets who has filled it, the job does not.
    target.stop()
    with landing_place(world) as target:
        with world.mirror(None, None, "--resume", expect=(1,)) as mirror:
            assert mirror.wait() == 1
        mirror.wait_for_message("another mirror has filled it")
        assert state(target) == "incoming" and owner(world) == "nobody"


def test_of_several_disks_none_lands_when_one_is_not_the_copy_any_more(world):
    for name in ("a", "b"):
        make_disk(world.path(name), SIZE, [(0, MIB)])
        make_disk(world.path(f"to-{name}"), SIZE)
    with world.server(*(f"{name}={world.path(name)}" for name in ("a", "b")),
                      name="source-server") as source, \
            world.server(*(f"{name}={world.path(f'to-{name}')},incoming" for name in ("a", "b")),
                         name="target-server",
                         options=["--state-dir", world.quick("target-state")]) as target:
        with world.mirror(source.source("a"), target.uri("a"), source.source("b"),
                          target.uri("b")) as mirror:
            mirror.wait_for_phase("ready")
            os.kill(mirror.pid, signal.SIGSTOP)
            disks = [{"name": name, "hold": source.hold(name)} for name in ("a", "b")]
            assert source.ask("POST", "/v1/retire", {"exports": disks, "job": "job"})[0] == 200
            mirror.kill()
        connect(target, "nbd-mirror:session:other:1", export="b").shutdown()
        with world.mirror(None, None, "--resume", expect=(1,)) as mirror:
            assert mirror.wait() == 1
        mirror.wait_for_message("another mirror has filled it")
        assert [target.export(name)["state"] for name in ("a", "b")] == ["incoming"] * 2


def test_a_mirror_that_waits_for_the_place_does_not_get_in_at_the_hand_over(world, source, target):
    refused = []

    def wait_for_the_place():
        while state(target) == "incoming":
            with contextlib.suppress(nbd.Error):
                connect(target, "nbd-mirror:session:other:1").pwrite(b"o" * 512, 0)
                return
            refused.append(True)

    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        with background(wait_for_the_place):
            target.wait_for_message("another mirror fills")  # and asks again
            assert mirror.cutover().returncode == 0
            assert mirror.wait() == 0
    assert refused and "trying again" not in mirror.messages()
    assert same_content(world.path("source"), world.path("target"))


def test_the_target_is_told_although_the_sources_server_was_started_again(world, target):
    make_disk(world.path("source"), SIZE, [(0, 12 * MIB)])
    with world.server(f"d={world.path('source')}", name="source-server") as source:
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            mirror.wait_for_phase("ready")
            os.kill(mirror.pid, signal.SIGSTOP)
            hold = source.hold()
            assert source.ask("POST", "/v1/exports/d/retire",
                              {"hold": hold, "job": "job"})[0] == 200
            mirror.kill()
    # For writing it is not served any more.
    with world.server(f"d={world.path('source')},ro", name="source-server") as source:
        assert state(source) == "retired"
        with world.mirror(None, None, "--resume") as mirror:
            assert mirror.wait() == 0
    assert state(target) == "serving" and owner(world) == "target"


def test_a_landing_place_that_was_open_to_others_meanwhile_is_not_handed_over_to(world, source):
    make_disk(world.path("target"), SIZE)
    with landing_place(world) as target:
        with world.mirror(source.source("d"), target.uri("d"), expect=(1,)) as mirror:
            mirror.wait_for_phase("ready")
            target.stop()
            with landing_place(world, more=""):
                assert mirror.wait() == 1
            mirror.wait_for_message("was incoming and is not any more")
    assert state(source) == "serving"
    with landing_place(world) as target, world.mirror(None, None, "--resume", "--cutover",
                                                      "auto") as mirror:
        assert mirror.wait() == 0
        assert state(target) == "serving"
    assert same_content(world.path("source"), world.path("target"))


def test_a_target_that_cannot_record_the_landing_keeps_everybody_out(world, source, target):
    # Since it was started, when something could be recorded there.
    in_the_way = world.quick("target-state") / "arrived"
    in_the_way.rmdir()
    in_the_way.write_text("")
    with world.mirror(source.source("d"), target.uri("d"), "--cutover", "auto",
                      "--reconnect-timeout", "1", expect=(1,)) as mirror:
        assert mirror.wait() == 1
        mirror.wait_for_message("guests may write nowhere")
        mirror.wait_for_message("--resume")
    assert (state(source), state(target)) == ("retired", "incoming")
    assert owner(world) == "nobody"
    in_the_way.unlink()
    with world.mirror(None, None, "--resume") as mirror:
        assert mirror.wait() == 0
    assert state(target) == "serving" and owner(world) == "target"
    assert same_content(world.path("source"), world.path("target"))


def test_a_landing_place_that_could_record_no_landing_does_not_start(world):
    target = make_disk(world.path("target"), SIZE)
    result = world.run_server(f"d={target},incoming", "--listen", "unix:x.sock", "--control",
                              "x.control", "--state-dir", "/proc/nbd-mirror")
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "nothing can be incoming" in line and "'/proc/nbd-mirror'" in line


def test_a_disk_that_was_made_anew_has_not_landed(world, source):
    """Where a file system tells no birth times, nothing else tells it from the one before."""
    if os.geteuid() != 0:
        pytest.skip("file systems cannot be mounted here")
    need("mkfs.ext4")
    image, mounted = make_disk(world.path("image"), 64 * MIB), world.path("mounted")
    mounted.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-I", "128", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mounted], check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        disk = mounted / "disk"
        for landed in (1, 2):
            def served():
                return world.server(f"d={disk},incoming,size={SIZE}", name="target-server",
                                    options=["--state-dir", world.quick("target-state")])
            with served() as target:
                assert state(target) == "incoming"
            with served() as target:
                assert state(target) == "incoming"
                connect(target, "nbd-mirror:session:job:1").shutdown()
                handle = connect(target, f"nbd-mirror:commit:job:{landed + 1}")
                wait_for(lambda: state(target) == "serving")
                handle.shutdown()
            disk.unlink()
    finally:
        # The kernel may still be taking the server down.
        wait_for(lambda: subprocess.run(["umount", mounted], check=False).returncode == 0)


def test_only_one_mirror_fills_a_landing_place(world, source, target):
    other = make_disk(world.path("other"), SIZE)
    with world.server(f"d={other}", name="other-server") as second:
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            mirror.wait_for_phase("ready")
            result = world.client("mirror", second.source("d"), target.uri("d"), "--job", "next",
                                  "--reconnect-timeout", "0")
            assert result.returncode == 1 and "the server's log says why" in result.stderr
            target.wait_for_message("another mirror fills")
            assert mirror.cutover().returncode == 0
            assert mirror.wait() == 0
    assert same_content(world.path("source"), world.path("target"))


def test_nothing_that_was_sent_before_the_landing_arrives_after_it(world, target):
    late = connect(target, "nbd-mirror:session:job:5")
    late.pwrite(b"m" * 512, 0)
    commit = "nbd-mirror:commit:job:9"
    mirror = connect(target, commit)
    assert mirror.can_meta_context(commit)
    assert state(target) == "serving"
    with pytest.raises(nbd.Error):
        late.pwrite(b"l" * 512, 0)
    for context in ("nbd-mirror:session:job:7", "nbd-mirror:session:job:10",
                    "nbd-mirror:session:other:1"):
        with pytest.raises(nbd.Error):
            connect(target, context)
    # A commit may be repeated: its answer may have been lost.
    assert connect(target, "nbd-mirror:commit:job:11").can_meta_context(
        "nbd-mirror:commit:job:11")
    guest = connect(target)
    assert guest.pread(512, 0) == b"m" * 512


def test_a_commit_that_comes_too_late_is_none(world, target):
    newer = connect(target, "nbd-mirror:session:job:9")
    with pytest.raises(nbd.Error):
        connect(target, "nbd-mirror:commit:job:5")
    with pytest.raises(nbd.Error):
        connect(target, "nbd-mirror:commit:other:99")
    assert state(target) == "incoming"
    newer.pwrite(b"n" * 512, 0)


def test_an_export_that_is_not_incoming_knows_no_commit(world, source):
    commit = "nbd-mirror:commit:job:1"
    handle = connect(source, commit, "nbd-mirror:incoming")
    assert not handle.can_meta_context(commit)
    assert not handle.can_meta_context("nbd-mirror:incoming")


def test_a_disk_may_come_back_to_where_it_was(world):
    make_disk(world.path("source"), SIZE, [(0, MIB)])
    make_disk(world.path("target"), SIZE)

    def first(more):
        return world.server(f"d={world.path('source')}{more}", name="first-server")

    with first("") as here, landing_place(world) as there:
        with world.mirror(here.source("d"), there.uri("d"), "--cutover", "auto") as mirror:
            assert mirror.wait() == 0
        connect(there).pwrite(b"new" * 512, 0)
        here.stop()
        with first(",incoming") as here:
            assert state(here) == "incoming"
            with world.mirror(there.source("d"), here.uri("d"), "--cutover", "auto",
                              job="back") as mirror:
                assert mirror.wait() == 0
            assert (state(there), state(here)) == ("retired", "serving")
            connect(here).pwrite(b"x", 0)
        with first("") as here:  # it is here for good
            assert state(here) == "serving"
    # And there it may land again.
    with landing_place(world) as there:
        assert state(there) == "incoming"


def test_a_released_copy_has_not_landed(world, source, target):
    with world.mirror(source.source("d"), target.uri("d"), "--cutover", "auto", "--handover",
                      "release") as mirror:
        assert mirror.wait() == 0
    assert (state(source), state(target)) == ("serving", "incoming")
    assert owner(world) == "source"


@pytest.mark.parametrize("arguments, sentence", [
    (["d=disk,ro,incoming"], "it cannot be ro"),
    (["d=disk,incoming=nbd://source/d"], "incoming takes no value"),
    (["d=disk,incoming", "--take-ownership", "d"], "incoming"),
])
def test_wrong_usage_of_incoming_is_said(world, arguments, sentence):
    make_disk(world.path("disk"), MIB)
    result = world.run_server(*arguments)
    assert result.returncode == 2 and sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
