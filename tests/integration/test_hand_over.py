# SPDX-License-Identifier: Apache-2.0
"""A hand-over while the storage of its record stands still, or fails, or is another server's too: who
may write, and who waits."""

import contextlib
import errno
import http.client
import pathlib
import signal
import threading
import time

import pytest

from harness import MIB, make_disk, wait_for
from meddling import is_stuck, meddling, standstill, tracer
from nbd_client import connect, nbd

RENAME = "rename,renameat,renameat2"


class Asked:
    """One request to the control socket, on a thread of its own."""

    def __init__(self, server, name, action, body):
        def run():
            with contextlib.suppress(OSError, http.client.HTTPException):  # it may be killed
                self.answer = server.ask("POST", f"/v1/exports/{name}/{action}", body, timeout=120)
        self.answer = None
        self.thread = threading.Thread(target=run)
        self.thread.start()

    def result(self):
        self.thread.join(timeout=60)
        assert self.answer is not None
        return self.answer


class Write:
    """One write, on a thread of its own."""

    def __init__(self, server, name):
        def run():
            try:
                handle.pwrite(b"x" * 512, 0)
                self.outcome = "written"
            except nbd.Error as error:
                self.outcome = error.errnum
        handle = connect(server, export=name)
        self.outcome = None
        threading.Thread(target=run, daemon=True).start()


def renew(server, held, lease_ms):
    assert server.ask("POST", "/v1/exports/d/hold", {"hold": held, "lease_ms": lease_ms})[0] == 200


def wait_until_stuck(server):
    wait_for(lambda: is_stuck(server, "hand-over"), what="the record")


def retire(server, held, name="d"):
    return Asked(server, name, "retire", {"hold": held, "moved_to": "nbd://elsewhere/d"})


def files_of(world):
    return [each.suffix for each in world.quick("state/moved").iterdir()]


@pytest.fixture
def server(world):
    disks = [f"{name}={make_disk(world.path(name), MIB)}" for name in ("d", "other")]
    with world.server(*disks) as made:
        yield made


def test_no_lease_waits_for_the_storage_of_the_records(world, server):
    with standstill(server, "fsync") as go_on:
        held = server.hold()
        retiring = retire(server, held)
        wait_until_stuck(server)
        server.hold("other", 300)
        other, own = Write(server, "other"), Write(server, "d")
        wait_for(lambda: other.outcome == "written")
        assert server.export("other")["state"] == "serving"
        renew(server, held, 300)
        status, answer = retiring.result()
        assert status == 409 and "the lease has lapsed" in answer["error"]
        wait_for(lambda: own.outcome == "written")
        # The thread that is stuck is the only one.
        again = server.hold()
        status, answer = retire(server, again).result()
        assert status == 503 and "has not answered yet" in answer["error"]
        server.release(again)
        go_on()
    wait_for(lambda: files_of(world) == [])
    held = server.hold()
    # Its file is gone a moment before it is.
    wait_for(lambda: retire(server, held).result()[0] == 200)
    assert files_of(world) == [".json"]


def test_nobody_writes_until_it_is_known_whether_the_disk_has_moved(world, server):
    with standstill(server, RENAME) as go_on:
        held = server.hold()
        retiring = retire(server, held)
        wait_until_stuck(server)
        write = Write(server, "d")
        renew(server, held, 1)
        time.sleep(1)  # long enough for what must not happen
        releasing = Asked(server, "d", "release", {"hold": held})
        server.hold("other", 200)
        wait_for(lambda: server.export("other")["state"] == "serving")
        assert server.export("d")["state"] == "held"
        assert server.ask("POST", "/v1/exports/d/hold", {})[0] == 409
        assert (write.outcome, retiring.answer, releasing.answer) == (None, None, None)
        go_on()
    assert retiring.result()[0] == 200
    status, answer = releasing.result()
    assert status == 409 and "has moved away, to nbd://elsewhere/d" in answer["error"]
    wait_for(lambda: write.outcome == errno.ESHUTDOWN)


@pytest.mark.parametrize("lapses", [False, True])
def test_a_record_that_fails_at_the_last_step_leaves_the_disk_here(world, server, lapses):
    # The second is that of the directory.
    with meddling(server, "fsync", "error=EIO:delay_enter=4s:when=2"):
        held = server.hold()
        write = Write(server, "d")
        retiring = retire(server, held)
        if lapses:
            wait_for(lambda: files_of(world) == [".json"])
            renew(server, held, 1)
        status, answer = retiring.result()
        assert status == 500 and "Input/output error" in answer["error"]
        assert files_of(world) == []
        server.wait_for_message("the hand-over of export 'd' is not recorded")
        if not lapses:
            assert server.export("d")["state"] == "held"
            server.release(held)
        wait_for(lambda: write.outcome == "written")
    assert retire(server, server.hold()).result()[0] == 200


def test_writers_wait_while_a_record_can_neither_be_made_nor_be_removed(world, server):
    # The directory with it is not durable, and the one without it is not either.
    with meddling(server, "fsync", "error=EIO:when=2+") as get_well:
        held = server.hold()
        write = Write(server, "d")
        retiring = retire(server, held)
        wait_for(lambda: "could neither be made durable nor be removed" in server.messages())
        renew(server, held, 1)
        time.sleep(1)  # long enough for what must not happen
        status, answer = server.ask("POST", "/v1/exports/d/hold", {"hold": "x"})
        assert status == 503 and "not known yet" in answer["error"]
        assert (write.outcome, retiring.answer) == (None, None)
        get_well()
    assert retiring.result()[0] == 500
    wait_for(lambda: write.outcome == "written")
    assert files_of(world) == []


def test_nothing_is_undone_where_nothing_can_have_been_done(world, server):
    # A file system that was made read-only meanwhile says so also of what was never there.
    with meddling(server, "rename,renameat,renameat2,unlink,unlinkat", "error=EROFS"):
        held = server.hold()
        status, answer = retire(server, held).result()
        assert status == 500 and "Read-only" in answer["error"]
        server.release(held)
    assert retire(server, server.hold()).result()[0] == 200


def test_one_disk_that_stands_still_keeps_no_other_from_being_handed_over(world, server):
    with meddling(server, "fstatfs", "delay_enter=300s", "-P", world.path("d")):
        stuck = retire(server, server.hold())
        wait_until_stuck(server)
        assert retire(server, server.hold("other"), "other").result()[0] == 200
        assert stuck.answer is None
    assert stuck.result()[0] == 200


def test_a_hand_over_that_finds_no_thread_is_refused_and_may_be_repeated(server):
    held = server.hold()
    with meddling(server, "clone,clone3", "error=EAGAIN"):
        status, answer = retire(server, held).result()
        assert status == 500 and "cannot make a thread" in answer["error"]
        assert server.export("d")["state"] == "held"
    assert retire(server, held).result()[0] == 200


def test_who_leaves_while_it_waits_for_a_release_leaves_nothing_behind(server):
    def descriptors():
        return len(list(pathlib.Path(f"/proc/{server.pid}/fd").iterdir()))

    with standstill(server, RENAME):
        held = server.hold()
        retiring = retire(server, held)
        wait_until_stuck(server)
        before = descriptors()
        for _ in range(20):
            with pytest.raises(TimeoutError):
                server.ask("POST", "/v1/exports/d/release", {"hold": held}, timeout=0.1)
        wait_for(lambda: descriptors() <= before)
    assert retiring.result()[0] == 200


def test_a_start_that_cannot_make_durable_what_it_finds_does_not_believe_it(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        assert retire(server, server.hold()).result()[0] == 200
    before = tracer("fsync", "error=EIO", "-P", world.quick("state/moved"))
    result = world.run_server(f"d={disk},ro", "--listen", "unix:x.sock", before=before)
    assert result.returncode == 1
    assert "Input/output error" in result.stderr
    assert "would be served for writing" in result.stderr


def test_a_read_only_export_has_no_writers_to_hold(world):
    with world.server(f"d={make_disk(world.path('disk'), MIB)},ro") as server:
        status, answer = server.ask("POST", "/v1/exports/d/hold", {})
        assert status == 409 and "read-only" in answer["error"]


def test_a_record_is_undone_where_it_was_made_wherever_that_is_by_now(world, server):
    with meddling(server, "fsync", "error=EIO:delay_enter=4s:when=2"):
        retiring = retire(server, server.hold())
        wait_for(lambda: files_of(world) == [".json"])
        world.quick("state").rename(world.quick("elsewhere"))
        assert retiring.result()[0] == 500
        assert list(world.quick("elsewhere/moved").iterdir()) == []


@pytest.mark.parametrize("calls,when,moved", [("fsync", 1, False), (RENAME, 1, False),
                                              ("fsync", 2, True)])
def test_a_server_that_is_killed_meanwhile_has_moved_the_disk_or_not(world, calls, when, moved):
    exports = [f"{name}={make_disk(world.path(name), MIB)}" for name in ("d", "other")]
    with world.server(*exports, expect=(-9,)) as server:
        with standstill(server, calls, when) as let_go:
            retire(server, server.hold())
            wait_until_stuck(server)
            assert files_of(world) == [".json" if moved else ".new"]
            server.process.kill()
            let_go()  # a traced process ends before its tracer's eyes
            server.wait()
    with world.server(*exports) as server:
        assert server.export("d")["state"] == ("retired" if moved else "serving")
        assert files_of(world) == [".json" if moved else ".new"]


@pytest.mark.parametrize("clients", [0, 1])
def test_a_stop_waits_until_it_is_known_whether_the_disk_has_moved(world, clients):
    exports = [f"{name}={make_disk(world.path(name), MIB)}" for name in ("d", "other")]
    with world.server(*exports) as server:
        with standstill(server, RENAME) as go_on:
            held = server.hold()
            retiring = retire(server, held)
            wait_until_stuck(server)
            writes = [Write(server, "d") for _ in range(clients)]
            wait_for(lambda: server.in_flight() == clients)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "the record of a hand-over: whether its disks have moved" in
                     server.messages())
            assert server.running()
            renew(server, held, 1000)
            assert server.ask("POST", "/v1/exports/other/hold", {})[0] == 503
            go_on()
        assert retiring.result()[0] == 200
        assert server.wait() == 0
        assert all(write.outcome != "written" for write in writes)
    with world.server(*exports) as server:
        assert server.export("d")["state"] == "retired"


def test_a_stop_does_not_wait_for_a_lease_when_the_record_fails(world):
    disk = make_disk(world.path("disk"), MIB)
    world.env["ASAN_OPTIONS"] = "detect_leaks=0"  # it ends while strace traces it, as leaks are looked for
    with world.server(f"d={disk}") as server:
        with meddling(server, "fsync", "error=EIO:delay_enter=4s:when=2"):
            retiring = retire(server, server.hold())
            wait_until_stuck(server)
            write = Write(server, "d")
            wait_for(lambda: server.in_flight() == 1)
            assert retiring.answer is None
            server.process.send_signal(signal.SIGTERM)
            assert retiring.result()[0] == 500
            assert server.wait(limit=30) == 0
        wait_for(lambda: write.outcome == "written")


def test_a_mirror_whose_hand_over_is_not_answered_does_not_say_who_has_the_disk(world):
    disk, target = make_disk(world.path("d"), MIB, [(0, MIB)]), make_disk(world.path("t"), MIB)
    with world.server(f"d={disk}") as server, world.server(f"t={target}") as receiver:
        with world.mirror(server.source("d"), receiver.uri("t"), expect=(1,)) as mirror:
            mirror.wait_for_phase("ready")
            with standstill(server, RENAME) as go_on:
                result = world.client("cutover", "job")
                assert result.returncode == 1 and "is not known" in result.stderr, result.stderr
                go_on()
        wait_for(lambda: server.export("d")["state"] == "retired")


def test_disks_that_moved_together_may_come_back_to_two_servers_at_a_time(world):
    exports = {name: f"{name}={make_disk(world.path(name), MIB)}" for name in ("a", "b", "c")}
    with world.server(*exports.values()) as server:
        disks = [{"name": name, "hold": server.hold(name)} for name in ("a", "b")]
        assert server.ask("POST", "/v1/retire", {"exports": disks})[0] == 200

    def land(server, name):
        connect(server, f"nbd-mirror:session:{name}:1", export=name).shutdown()
        commit = f"nbd-mirror:commit:{name}:2"
        assert connect(server, commit, export=name).can_meta_context(commit)

    # What says that they have moved is one file, which both change.
    with world.server(f"{exports['a']},incoming") as first, \
            world.server(f"{exports['b']},incoming") as second:
        with standstill(first, RENAME, when=2) as go_on:
            landing = [threading.Thread(target=land, args=each)
                       for each in ((first, "a"), (second, "b"))]
            landing[0].start()
            wait_for(lambda: is_stuck(first, "nbd-2"))
            landing[1].start()
            wait_for(lambda: second.connections())
            time.sleep(0.5)  # long enough for the second to have overtaken
            go_on()
        for each in landing:
            each.join(60)
        assert [first.export("a")["state"], second.export("b")["state"]] == ["serving"] * 2
    with world.server(*exports.values()) as server:
        assert [server.export(name)["state"] for name in exports] == ["serving"] * 3
