# SPDX-License-Identifier: Apache-2.0
"""Trackers, freeze, acknowledge, hold and release over the control socket."""

import os
import stat
import threading
import time

import pytest

from harness import GIB, KIB, MIB, ask_all, make_disk, wait_for
from meddling import is_stuck, meddling, standstill
from nbd_client import connect, nbd
from wire import WRITE, Wire, header


BLOCK = 64 * KIB


@pytest.fixture
def server(world):
    disk = make_disk(world.path("disk"), 16 * MIB)
    with world.server(f"d={disk}") as running:
        yield running


def tracker(server, path, method="POST", body=None):
    return server.ask(method, f"/v1/exports/d/trackers/{path}", body)


def dirty_ranges(server, name, prefix="nbd-mirror"):
    context = f"{prefix}:dirty-bitmap:{name}"
    handle = connect(server, context)
    assert handle.can_meta_context(context)
    ranges = []

    def extent(metacontext, offset, entries, error):
        assert metacontext == context
        for length, flags in zip(entries[::2], entries[1::2]):
            if flags & 1:
                ranges.append((offset, length))
            offset += length

    handle.block_status(handle.get_size(), 0, extent)
    handle.shutdown()
    return ranges


def test_every_kind_of_write_is_marked(server):
    assert tracker(server, "t", "PUT", {"granularity": BLOCK})[0] == 201
    handle = connect(server)
    handle.pwrite(b"x" * 10, BLOCK - 5)          # two blocks
    handle.zero(100, 4 * BLOCK)
    handle.trim(BLOCK, 8 * BLOCK)
    handle.pwrite(b"x", 16 * MIB - 1, nbd.CMD_FLAG_FUA)
    status, frozen = tracker(server, "t/freeze")
    assert status == 200 and frozen["dirty_bytes"] == 5 * BLOCK
    expected = [(0, 2 * BLOCK), (4 * BLOCK, BLOCK), (8 * BLOCK, BLOCK), (16 * MIB - BLOCK, BLOCK)]
    assert dirty_ranges(server, "t") == expected
    assert dirty_ranges(server, "t", "qemu") == expected


def test_a_refused_write_is_not_marked(server):
    tracker(server, "t", "PUT", {})
    handle = connect(server)
    handle.set_strict_mode(0)
    with pytest.raises(nbd.Error):
        handle.pwrite(b"x" * 512, 16 * MIB)
    assert tracker(server, "t/freeze")[1]["dirty_bytes"] == 0


@pytest.mark.parametrize("cache", ["writeback", "direct"])
@pytest.mark.parametrize("offset", [2 * BLOCK, 2 * BLOCK + 100], ids=["aligned", "unaligned"])
def test_a_write_that_is_on_its_way_to_the_disk_at_a_freeze_is_in_the_next_generation(world, cache,
                                                                                      offset):
    disk = make_disk(world.path("disk"), 16 * MIB)
    # The ring's writes are not seen by strace: what comes behind them on the thread is.
    calls = "pwrite64,pwritev,pwritev2" if cache == "writeback" or offset % 512 else "sendmsg"
    with world.server(f"d={disk},cache={cache}") as server, Wire(server) as client:
        assert tracker(server, "t", "PUT", {"granularity": BLOCK})[0] == 201
        client.go("d")
        client.read(0, 512)
        with standstill(server, calls) as let_go:
            client.send(header(WRITE, offset, 512, cookie=5) + b"w" * 512)
            wait_for(lambda: is_stuck(server, "nbd-1"))
            if calls == "sendmsg":  # it is on the disk, and the answer is on its way
                assert tracker(server, "t/freeze")[1]["dirty_bytes"] == BLOCK
            else:
                generation = tracker(server, "t/freeze")[1]["generation"]
                tracker(server, "t/acknowledge", body={"generation": generation})
            let_go()
        assert client.simple_reply() == (0, 5)
        assert tracker(server, "t/freeze")[1]["dirty_bytes"] == BLOCK


def test_what_a_failed_write_may_have_changed_is_marked(server):
    tracker(server, "t", "PUT", {"granularity": BLOCK})
    handle = connect(server)
    handle.pread(512, 0)
    with meddling(server, "pwrite64,pwritev,pwritev2", "error=EIO"), pytest.raises(nbd.Error):
        handle.pwrite(b"x" * 2 * BLOCK, 4 * BLOCK)
    tracker(server, "t/freeze")
    assert dirty_ranges(server, "t") == [(4 * BLOCK, 2 * BLOCK)]


def test_a_range_is_frozen_anew(server):
    tracker(server, "t", "PUT", {"granularity": BLOCK})
    handle = connect(server)
    generation = tracker(server, "t/freeze")[1]["generation"]
    handle.pwrite(b"x", 0)
    handle.pwrite(b"x", 8 * BLOCK)
    body = {"generation": generation, "from": 0, "to": 4 * BLOCK}
    assert tracker(server, "t/refreeze", body=body) == (200, {"dirty_bytes": BLOCK})
    assert dirty_ranges(server, "t") == [(0, BLOCK)]
    assert tracker(server, "t/refreeze", body={**body, "generation": generation + 1})[0] == 409
    for wrong in ({"to": 1 << 40}, {"from": 5 * BLOCK}, {"from": -1}):
        assert tracker(server, "t/refreeze", body={**body, **wrong})[0] == 400
    assert tracker(server, "t/acknowledge", body={"generation": generation})[0] == 200
    assert tracker(server, "t/refreeze", body=body)[0] == 409
    tracker(server, "t/freeze")
    assert dirty_ranges(server, "t") == [(8 * BLOCK, BLOCK)]


def test_what_was_written_again_can_be_left_for_a_later_generation(server):
    tracker(server, "t", "PUT", {"granularity": BLOCK})
    handle = connect(server)
    handle.pwrite(b"x", 0)
    generation = tracker(server, "t/freeze")[1]["generation"]
    assert tracker(server, "t/acknowledge", body={"generation": generation})[0] == 200
    handle.pwrite(b"x" * 2 * BLOCK, 0)
    _, frozen = tracker(server, "t/freeze", body={"leave_rewritten": True})
    assert (frozen["dirty_bytes"], frozen["left_bytes"]) == (BLOCK, BLOCK)
    assert dirty_ranges(server, "t") == [(BLOCK, BLOCK)]
    assert tracker(server, "t/freeze", body={"leave_rewritten": "yes"})[0] == 400
    tracker(server, "t/freeze")
    assert dirty_ranges(server, "t") == [(0, 2 * BLOCK)]


def test_generations_are_acknowledged_in_step(server):
    tracker(server, "t", "PUT", {"granularity": BLOCK})
    handle = connect(server)
    handle.pwrite(b"x", 0)
    first = tracker(server, "t/freeze")[1]["generation"]
    handle.pwrite(b"x", BLOCK)
    assert tracker(server, "t/acknowledge", body={"generation": first + 1})[0] == 409
    assert tracker(server, "t/acknowledge", body={"generation": first})[0] == 200
    assert dirty_ranges(server, "t") == []
    assert tracker(server, "t/freeze")[1]["dirty_bytes"] == BLOCK
    assert tracker(server, "t/freeze")[1]["dirty_bytes"] == BLOCK  # not acknowledged: merged


def test_trackers_are_created_once_and_refused_with_reason(server):
    assert tracker(server, "t", "PUT", {"granularity": BLOCK})[0] == 201
    assert tracker(server, "t", "PUT", {"granularity": BLOCK})[0] == 200
    assert tracker(server, "t", "PUT", {"granularity": 4096})[0] == 409
    for granularity in (0, 1000, 2048, -4096, GIB, "x"):
        status, answer = tracker(server, "u", "PUT", {"granularity": granularity})
        assert status == 400 and answer["error"]
    assert tracker(server, "nobody/freeze")[0] == 404
    assert tracker(server, "t", "DELETE")[0] == 200
    assert tracker(server, "t", "DELETE")[0] == 404
    assert server.ask("PUT", "/v1/exports/e/trackers/t", {})[0] == 404


METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")


@pytest.mark.parametrize("path, takes", [
    ("/metrics", "GET"), ("/v1/connections", "GET"), ("/v1/exports", "GET"),
    ("/v1/exports/d", "GET"), ("/v1/exports/d/trackers/t", "PUT, DELETE"),
    ("/v1/exports/d/trackers/t/freeze", "POST"), ("/v1/exports/d/trackers/t/acknowledge", "POST"),
    ("/v1/exports/d/hold", "POST"), ("/v1/exports/d/release", "POST"),
    ("/v1/exports/d/retire", "POST"), ("/v1/exports/d/resize", "POST")])
def test_a_path_says_which_methods_it_takes(server, path, takes):
    for method in METHODS:
        status, answer, headers = ask_all(server.control, method, path)
        assert (status == 405) == (method not in takes.split(", ")), f"{method}: {answer}"
        if status == 405:
            assert headers["Allow"] == takes
            assert answer == {"error": f"this path does not take {method}; it takes {takes}"}


@pytest.mark.parametrize("path", [
    "/", "/v1", "/v1/nothing", "/v1/exports/e", "/v1/exports/e/hold", "/v1/exports/d/x",
    "/v1/exports/d/hold/x", "/v1/exports/d/trackers", "/v1/exports/d/trackers/t/melt",
    "/v1/exports/d/trackers/t/freeze/x"])
def test_a_path_that_does_not_exist_is_not_found_with_any_method(server, path):
    for method in METHODS:
        status, answer, headers = ask_all(server.control, method, path)
        assert status == 404 and answer["error"] and headers["Allow"] is None, method


def test_a_removed_tracker_is_not_read_on(server):
    tracker(server, "t", "PUT", {})
    handle = connect(server, "nbd-mirror:dirty-bitmap:t")
    tracker(server, "t", "DELETE")
    with pytest.raises(nbd.Error):
        handle.block_status(MIB, 0, lambda *_: 0)


def test_the_control_socket_is_the_owners(server):
    assert stat.S_IMODE(os.stat(server.control).st_mode) == 0o600


def hold(server, lease_ms=60_000, **body):
    """By itself for longer than anything here is waited for: what ends it is not the lease."""
    return server.ask("POST", "/v1/exports/d/hold", {"lease_ms": lease_ms, **body})


class Writer(threading.Thread):
    """Writes one block after the other; remembers the error it met."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.handle = connect(server)
        self.count = 0
        self.error = None
        self.stop = False

    def run(self):
        while not self.stop:
            try:
                self.handle.pwrite(b"x" * 512, (self.count % 1000) * 4096)
            except nbd.Error as error:
                self.error = error
                return
            self.count += 1


@pytest.fixture
def writer(server):
    thread = Writer(server)
    thread.start()
    wait_for(lambda: thread.count > 10)
    yield thread
    thread.stop = True
    thread.join(20)


def test_held_writers_wait_and_go_on_after_the_release(server, writer):
    status, answer = hold(server)
    assert status == 200
    before = writer.count
    handle = connect(server)
    buffer = nbd.Buffer.from_bytearray(bytearray(b"w" * 512))
    handle.aio_pwrite(buffer, 0)
    handle.pread(4096, 0)  # reads go on; and the write, sent before this one, has got there
    assert server.export("d")["state"] == "held"
    tracker(server, "t", "PUT", {})
    assert tracker(server, "t/freeze")[1]["dirty_bytes"] == 0
    assert writer.count <= before + 1  # its answer may have been on the way
    status, times = server.ask("POST", "/v1/exports/d/release", {"hold": answer["hold"]})
    assert status == 200 and times["longest_wait_ms"] > 0
    wait_for(lambda: writer.count > before + 10)
    assert writer.error is None


def test_a_lapsed_lease_lets_the_writers_go_on_and_refuses_its_holder(server, writer):
    begun = time.monotonic()
    status, answer = hold(server, lease_ms=1000)
    assert status == 200
    before = writer.count
    # One answer may have been on the way; the next comes when the lease is over, and no sooner.
    wait_for(lambda: writer.count > before + 1, 10)
    assert time.monotonic() - begun >= 1
    wait_for(lambda: writer.count > before + 10)
    for action in ("release", "retire"):
        status, _ = server.ask("POST", f"/v1/exports/d/{action}", {"hold": answer["hold"]})
        assert status == 409
    assert hold(server, hold=answer["hold"])[0] == 409
    assert writer.error is None


def test_a_renewed_lease_lasts(server, writer):
    answer = hold(server, lease_ms=2000)[1]
    before = writer.count
    end = time.monotonic() + 4.5
    while time.monotonic() < end:
        assert hold(server, lease_ms=2000, hold=answer["hold"])[0] == 200
    assert writer.count <= before + 1
    server.release(answer["hold"])


def test_a_stop_ends_a_hold_and_what_waited_is_done(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        handle = connect(server)
        assert hold(server)[0] == 200
        buffer = nbd.Buffer.from_bytearray(bytearray(b"y" * 512))
        handle.aio_pwrite(buffer, 0)
        handle.aio_disconnect(0)  # a client that has said goodbye is owed its write
        # The server has it, and the goodbye right behind it.
        wait_for(lambda: server.in_flight())
        assert server.stop(limit=30) == 0  # and the lease has a minute
    assert disk.read_bytes()[:512] == b"y" * 512


def test_a_second_hold_and_a_wrong_id_are_refused(server):
    answer = hold(server)[1]
    assert hold(server)[0] == 409
    assert server.ask("POST", "/v1/exports/d/release", {"hold": "0000"})[0] == 409
    assert hold(server, lease_ms=0)[0] == 400
    assert server.ask("POST", "/v1/exports/d/release", {})[0] == 400
    server.release(answer["hold"])


def test_a_new_connection_is_held_too(server):
    answer = hold(server)[1]
    late = Writer(server)
    late.start()
    reader = connect(server)
    assert reader.pread(512, 0) == b"\0" * 512
    wait_for(lambda: server.in_flight() == 1)
    assert late.count == 0
    server.ask("POST", "/v1/exports/d/release", {"hold": answer["hold"]})
    wait_for(lambda: late.count > 0)
    late.stop = True
    late.join(20)


def test_a_write_before_goodbye_is_done_when_the_hold_ends(server):
    answer = hold(server)[1]
    handle = connect(server)
    cookie = handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"y" * 512)), 4096)
    handle.aio_disconnect()
    assert cookie > 0
    server.ask("POST", "/v1/exports/d/release", {"hold": answer["hold"]})
    wait_for(lambda: connect(server).pread(512, 4096) == b"y" * 512)


def test_a_disk_that_has_grown_is_noticed_on_request(world):
    disk = make_disk(world.path("disk"), MIB + 100, [(0, MIB)])
    with world.server(f"d={disk}") as server:
        old = connect(server)
        assert server.ask("POST", "/v1/exports/d/resize") == (200, {"size_bytes": MIB + 100})
        tracker(server, "t", "PUT", {})
        os.truncate(disk, 3 * MIB)
        assert connect(server).get_size() == MIB + 100
        status, answer = server.ask("POST", "/v1/exports/d/resize")
        assert status == 409 and "while it is tracked" in answer["error"]
        tracker(server, "t", "DELETE")
        assert server.ask("POST", "/v1/exports/d/resize") == (200, {"size_bytes": 3 * MIB})
        new = connect(server)
        assert new.get_size() == 3 * MIB and old.get_size() == MIB + 100
        tracker(server, "t", "PUT", {})
        new.pwrite(b"x" * 512, 3 * MIB - 512)
        old.pwrite(b"y" * 512, 0)
        assert tracker(server, "t/freeze")[1]["dirty_bytes"] == 2 * BLOCK
        old.set_strict_mode(0)
        with pytest.raises(nbd.Error):  # for this client the disk still ends there
            old.pwrite(b"x" * 512, 2 * MIB)
        tracker(server, "t", "DELETE")
        os.truncate(disk, 2 * MIB)
        status, answer = server.ask("POST", "/v1/exports/d/resize")
        assert status == 409 and "smaller" in answer["error"]
        assert server.export("d")["size_bytes"] == 3 * MIB


def test_a_client_is_held_to_the_size_that_it_was_told(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        with meddling(server, "sendto", "delay_exit=1s"):
            client = connect(server)  # the server's thread has not come back from telling it
            os.truncate(disk, 2 * MIB)
            assert server.ask("POST", "/v1/exports/d/resize") == (200, {"size_bytes": 2 * MIB})
        assert client.get_size() == MIB
        client.set_strict_mode(0)
        with pytest.raises(nbd.Error):
            client.pwrite(b"x" * 512, MIB)
        assert connect(server).get_size() == 2 * MIB


def test_metrics_and_connections_tell_what_is_there(server):
    handle = connect(server)
    handle.pwrite(b"x" * 4096, 0)
    status, text = server.ask("GET", "/metrics")
    assert status == 200
    assert 'nbd_mirror_request_bytes_total{export="d",command="write"} 4096' in text
    # Counted when the reply has been given to the socket, which the client may be quicker than.
    wait_for(lambda: 'nbd_mirror_request_seconds_count{export="d",command="write"} 1'
             in server.ask("GET", "/metrics")[1])
    with pytest.raises(nbd.Error):
        handle.set_strict_mode(0)
        handle.pwrite(b"x" * 512, 16 * MIB)
    tracker(server, "t", "PUT", {})
    handle.pwrite(b"x" * 512, 0)
    hold(server)
    text = server.ask("GET", "/metrics")[1]
    for line in ('nbd_mirror_errors_total{export="d",error="ENOSPC"} 1',
                 'nbd_mirror_requests_total{export="d",command="write"} 3',
                 'nbd_mirror_tracker_dirty_bytes{export="d",tracker="t"} 65536',
                 'nbd_mirror_holds_total{export="d"} 1',
                 'nbd_mirror_export_held{export="d"} 1',
                 'nbd_mirror_export_write_error{export="d"} 0'):
        assert line in text.splitlines()
    [connection] = server.connections()
    assert connection["export"] == "d" and connection["tls"] is False
    assert connection["requests"] == {"write": 3} and connection["bytes"] == {"write": 4608}
    assert connection["in_flight"] <= 1 and connection["cpu"] is None
    assert f"nbd-{connection['id']}" in server.cpu_threads()
    assert connection["since"].endswith("Z")
    handle.cache(1024, 0)
    wait_for(lambda: server.connections()[0]["bytes"].get("cache") == 1024)
    # What a connection did is not forgotten when it ends.
    handle.shutdown()
    wait_for(lambda: server.connections() == [])
    assert server.export("d")["written_bytes"] == 4608
