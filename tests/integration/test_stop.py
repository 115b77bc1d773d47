# SPDX-License-Identifier: Apache-2.0
"""The server's end: what was received is finished and answered."""

import contextlib
import signal
import socket
import threading
import time

import pytest

from harness import KIB, MIB, make_disk, wait_for
from meddling import is_stuck, standstill
from wire import READ, WRITE, Wire, header


@pytest.mark.parametrize("cache", ["writeback", "direct"])
def test_writes_that_a_hold_keeps_waiting_are_done_and_answered(world, cache):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk},cache={cache}") as server, Wire(server) as client:
        client.go("d")
        server.hold()
        # Whole blocks and odd parts of blocks in turn: the odd ones need the disk for themselves.
        places = [(n * 8 * KIB + (n % 2), 4 * KIB) for n in range(16)]
        client.send(b"".join(header(WRITE, offset, length, cookie=n) + bytes([n + 1]) * length
                             for n, (offset, length) in enumerate(places)))
        wait_for(lambda: server.in_flight() == 16)
        server.process.send_signal(signal.SIGTERM)
        assert sorted(client.simple_reply() for _ in places) == [(0, n) for n in range(16)]
        assert server.wait() == 0
    content = disk.read_bytes()
    assert all(content[offset:offset + length] == bytes([n + 1]) * length
               for n, (offset, length) in enumerate(places))


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_every_write_that_was_done_is_answered_though_more_was_sent(world, tcp):
    disk = make_disk(world.path("disk"), 64 * MIB)
    with world.server(f"d={disk}") as server, Wire(server, tcp=tcp) as client:
        client.go("d")
        stopped = threading.Event()

        def send_more_than_is_taken():
            with contextlib.suppress(OSError):
                for n in range(4000):
                    client.send(header(WRITE, n * 4 * KIB, 4 * KIB, cookie=2 * n) + b"w" * 4 * KIB)
                    client.send(header(READ, 0, 32 * KIB, cookie=2 * n + 1))
                    # Of what is sent by then, a megabyte is never read.
                    if stopped.is_set() and n >= 300:
                        break
                client.socket.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send_more_than_is_taken)
        sender.start()
        wait_for(lambda: server.in_flight() == 128)  # nobody takes the answers
        server.process.send_signal(signal.SIGTERM)
        # A server that ends gives its clients a second: who says that no more comes needs no more.
        stopped.set()
        answered = set()
        try:
            while True:
                error, cookie = client.simple_reply()
                assert error == 0
                answered.add(cookie)
                if cookie % 2:
                    client.receive(32 * KIB)
        except (EOFError, ConnectionError):
            pass
        assert server.wait() == 0
        sender.join()
    content = disk.read_bytes()
    done = {2 * n for n in range(4000) if content[n * 4 * KIB] == ord("w")}
    assert done and done == {cookie for cookie in answered if cookie % 2 == 0}


def test_a_closed_terminal_ends_it_like_any_other_request_to_stop(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.wait() == 0
        assert not server.socket.exists()


def test_nothing_is_held_any_more_once_it_stops(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}", "e=" + str(make_disk(world.path("e"), MIB))) as server:
        # A client that does not read its answer keeps the server draining.
        with Wire(server) as client:
            client.go("d")
            server.hold("e")
            client.send(b"".join(header(READ, 0, MIB, cookie=n) for n in range(64)))
            wait_for(lambda: server.in_flight() > 0)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: server.ask("GET", "/v1/exports/e")[1]["state"] == "serving")
            status, answer = server.ask("POST", "/v1/exports/e/hold", {})
            assert status == 503 and "stops" in answer["error"]


def test_who_waits_for_a_hold_is_told_that_the_server_stops(world):
    disk = make_disk(world.path("disk"), MIB)
    answers = []
    with world.server(f"d={disk}") as server, Wire(server) as client:
        client.go("d")
        client.send(header(READ, 0, 512, cookie=1))
        client.simple_reply()
        client.receive(512)
        with standstill(server, "pwrite64,pwritev,pwritev2") as let_go:
            client.send(header(WRITE, 0, 512, cookie=2) + b"w" * 512)
            wait_for(lambda: is_stuck(server, "nbd-1"))
            holding = threading.Thread(target=lambda: answers.append(
                server.ask("POST", "/v1/exports/d/hold", {"lease_ms": 60_000})))
            holding.start()
            wait_for(lambda: server.export("d")["state"] == "held")
            assert answers == []
            server.process.send_signal(signal.SIGTERM)
            holding.join(timeout=60)
            let_go()
        [(status, answer)] = answers
        assert status == 503 and "the server stops" in answer["error"]
        assert client.simple_reply() == (0, 2)


# The client leaves, or is cut off by the server, which waits for five seconds.
@pytest.mark.parametrize("leaves", [True, False])
def test_a_write_at_the_door_of_a_hold_does_not_keep_the_server_from_ending(world, leaves):
    disks = [f"{name}={make_disk(world.path(name), 256 * MIB)}" for name in ("d", "other")]
    with world.server(*disks, options=["--buffer-memory", "96M"]) as server, \
            Wire(server) as client, Wire(server) as reader:
        server.hold()
        reader.go("other")
        reader.send(header(READ, 0, 32 * MIB) + header(READ, 64 * MIB, 32 * MIB))
        wait_for(lambda: server.metric("nbd_mirror_buffer_bytes") >= 64 * MIB)
        client.go("d")
        client.send(header(WRITE, 0, 16 * MIB))
        wait_for(lambda: server.in_flight() == 3)
        server.process.send_signal(signal.SIGTERM)
        if leaves:
            wait_for(lambda: not server.socket.exists())
            time.sleep(0.5)  # until the connections know it too
            client.socket.close()
        assert server.wait(30) == 0
