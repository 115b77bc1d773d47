# SPDX-License-Identifier: Apache-2.0
"""A hand-over while the storage of its record stands still, or fails: who may write, and who waits."""

import contextlib
import errno
import http.client
import signal
import threading
import time

import pytest

from harness import MIB, make_disk, wait_for
from meddling import meddling, standstill
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


def hold(server, name, lease_ms):
    status, answer = server.ask("POST", f"/v1/exports/{name}/hold", {"lease_ms": lease_ms})
    assert status == 200
    return answer["hold"]


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
        held = hold(server, "d", 1500)
        retiring = retire(server, held)
        wait_for(lambda: files_of(world) == [".new"])
        hold(server, "other", 300)
        other, own = Write(server, "other"), Write(server, "d")
        wait_for(lambda: other.outcome == "written")
        assert server.export("other")["state"] == "serving"
        status, answer = retiring.result()
        assert status == 409 and "the lease has lapsed" in answer["error"]
        wait_for(lambda: own.outcome == "written")
        # The thread that is stuck is the only one.
        again = hold(server, "d", 60_000)
        status, answer = retire(server, again).result()
        assert status == 503 and "has not answered yet" in answer["error"]
        assert server.ask("POST", "/v1/exports/d/release", {"hold": again})[0] == 200
        go_on()
    wait_for(lambda: files_of(world) == [])
    assert retire(server, hold(server, "d", 60_000)).result()[0] == 200
    assert files_of(world) == [".json"]


def test_nobody_writes_until_it_is_known_whether_the_disk_has_moved(world, server):
    with standstill(server, RENAME) as go_on:
        held = hold(server, "d", 300)
        retiring = retire(server, held)
        wait_for(lambda: files_of(world) == [".new"])
        write = Write(server, "d")
        time.sleep(1)  # the lease has ended
        releasing = Asked(server, "d", "release", {"hold": held})
        hold(server, "other", 200)
        wait_for(lambda: server.export("other")["state"] == "serving")
        assert server.export("d")["state"] == "held"
        assert server.ask("POST", "/v1/exports/d/hold", {})[0] == 409
        assert (write.outcome, retiring.answer, releasing.answer) == (None, None, None)
        go_on()
    assert retiring.result()[0] == 200
    status, answer = releasing.result()
    assert status == 409 and "has moved away, to nbd://elsewhere/d" in answer["error"]
    wait_for(lambda: write.outcome == errno.ESHUTDOWN)


@pytest.mark.parametrize("lease_ms", [300, 60_000])
def test_a_record_that_fails_at_the_last_step_leaves_the_disk_here(world, server, lease_ms):
    # The second is that of the directory.
    with meddling(server, "fsync", "error=EIO:delay_enter=1s:when=2"):
        held = hold(server, "d", lease_ms)
        write = Write(server, "d")
        status, answer = retire(server, held).result()
        assert status == 500 and "Input/output error" in answer["error"]
        assert files_of(world) == []
        if lease_ms > 1000:
            assert server.export("d")["state"] == "held"
            assert server.ask("POST", "/v1/exports/d/release", {"hold": held})[0] == 200
        wait_for(lambda: write.outcome == "written")
    assert retire(server, hold(server, "d", 60_000)).result()[0] == 200


@pytest.mark.parametrize("calls,when,moved", [("fsync", 1, False), (RENAME, 1, False),
                                              ("fsync", 2, True)])
def test_a_server_that_is_killed_meanwhile_has_moved_the_disk_or_not(world, calls, when, moved):
    exports = [f"{name}={make_disk(world.path(name), MIB)}" for name in ("d", "other")]
    with world.server(*exports, expect=(-9,)) as server:
        with standstill(server, calls, when) as let_go:
            retire(server, hold(server, "d", 60_000))
            wait_for(lambda: files_of(world) == [".json" if moved else ".new"])
            server.process.kill()
            let_go()  # a traced process ends before its tracer's eyes
            server.wait()
    with world.server(*exports) as server:
        assert server.export("d")["state"] == ("retired" if moved else "serving")
        assert files_of(world) == [".json" if moved else ".new"]


def test_a_stop_waits_until_it_is_known_whether_the_disk_has_moved(world):
    exports = [f"{name}={make_disk(world.path(name), MIB)}" for name in ("d", "other")]
    with world.server(*exports) as server:
        with standstill(server, RENAME) as go_on:
            retiring = retire(server, hold(server, "d", 300))
            wait_for(lambda: files_of(world) == [".new"])
            write = Write(server, "d")
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "the stop waits for the record" in server.messages())
            assert server.running() and write.outcome != "written"
            go_on()
        assert retiring.result()[0] == 200
        assert server.wait() == 0
        assert write.outcome != "written"
    with world.server(*exports) as server:
        assert server.export("d")["state"] == "retired"


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
