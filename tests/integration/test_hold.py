# SPDX-License-Identifier: Apache-2.0
"""Clients that a hold keeps waiting: what becomes of their writes, and of everybody else."""

import contextlib
import socket
import threading
import time

import pytest

from harness import KIB, MIB, make_disk, wait_for
from wire import DISC, READ, TRIM, WRITE, Wire, header


@pytest.fixture
def server(world):
    disks = [f"{name}={make_disk(world.path(name), 256 * MIB, [(128 * MIB, MIB)])}"
             for name in ("d", "other")]
    with world.server(*disks, options=["--buffer-memory", "96M"]) as running:
        yield running


def sends(client, data):
    """On a thread: it may wait for room. Ends when all is sent, or when the client is closed."""
    def run():
        with contextlib.suppress(OSError):
            client.send(data)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


# `taken`: as many are taken in; of what is more, the first one stands at the door.
@pytest.mark.parametrize("count, size, taken", [
    (4, 16 * KIB, 4), (16, 512 * KIB, 9), (200, 4 * KIB, 128)],
    ids=["few", "more bytes than wait", "more requests than wait"])
def test_writes_of_a_client_that_died_are_not_done_later(server, count, size, taken):
    held = server.hold()
    with Wire(server) as dead:
        dead.go("d")
        sends(dead, b"".join(header(WRITE, number * size, size, cookie=number) + b"A" * size
                             for number in range(count)))
        wait_for(lambda: server.in_flight() == taken)
        dead.socket.shutdown(socket.SHUT_RDWR)  # as the end of its process does, whoever sends
    with Wire(server) as after:
        after.go("d")
        assert after.read(0, 4 * KIB) == bytes(4 * KIB)
        # Also when it has not been noticed yet that the client is gone.
        server.release(held)
        assert after.write(0, b"B" * 4 * KIB) == 0
        wait_for(lambda: len(server.connections()) == 1)
        assert after.read(0, count * size) == b"B" * 4 * KIB + bytes(count * size - 4 * KIB)


@pytest.mark.parametrize("count, size, taken", [(8, MIB, 5), (140, 4 * KIB, 128)])
def test_writes_of_a_client_that_died_are_given_up_during_the_hold(server, count, size, taken):
    held = server.hold()
    with Wire(server) as dead:
        dead.go("d")
        sends(dead, b"".join(header(WRITE, 0, size) + b"A" * size for _ in range(count)))
        wait_for(lambda: server.in_flight() == taken)
        dead.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: server.connections() == [])
    server.release(held)


def test_writes_of_a_client_that_died_are_given_up_during_a_throttle(server):
    assert server.ask("POST", "/v1/exports/d/throttle", {"delay_us": 50_000})[0] == 200
    with Wire(server) as dead:
        dead.go("d")
        dead.send(b"".join(header(TRIM, 0, 512) for _ in range(2000)))
    wait_for(lambda: server.connections() == [])


def test_a_write_at_the_door_of_a_hold_dies_with_its_client(server):
    with Wire(server) as large, Wire(server) as after:
        large.go("other")
        large.send(header(WRITE, 0, 32 * MIB) + b"h" * MIB)  # so that others may keep 96 KiB
        wait_for(lambda: server.metric("nbd_mirror_buffer_bytes") >= 24 * MIB)
        held = server.hold()
        with Wire(server) as dead:
            dead.go("d")
            dead.send(header(WRITE, 0, 128 * KIB) + b"A" * 128 * KIB)
            wait_for(lambda: server.in_flight() == 2)
        server.release(held)
        after.go("d")
        wait_for(lambda: len(server.connections()) == 2)
        assert after.read(0, 128 * KIB) == bytes(128 * KIB)


def take_the_large_share(server, large, small):
    """Of the memory: by two writes that are on their way."""
    for count, (client, size) in enumerate(((large, 64 * MIB), (small, 8 * MIB)), start=1):
        client.go("other")
        client.send(header(WRITE, 0, size, cookie=1) + b"h" * 64 * KIB)
        wait_for(lambda count=count: server.in_flight() == count)


def test_a_write_that_waits_for_memory_dies_with_its_client(server):
    with Wire(server) as large, Wire(server) as small, Wire(server) as after:
        take_the_large_share(server, large, small)
        with Wire(server) as dead:
            dead.go("d")
            dead.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
            dead.send(header(WRITE, 0, 260 * KIB) + b"A" * 260 * KIB)
            wait_for(lambda: server.metric("nbd_mirror_connections_waiting_for_memory") == 1)
        after.go("d")
        assert after.write(0, b"B" * 4 * KIB) == 0
        small.send(b"h" * (8 * MIB - 64 * KIB))
        assert small.simple_reply() == (0, 1)
        wait_for(lambda: len(server.connections()) == 3)
        assert after.read(0, 260 * KIB) == b"B" * 4 * KIB + bytes(256 * KIB)


def test_a_client_that_is_given_up_does_not_stand_in_the_line_for_memory(server):
    with Wire(server) as large, Wire(server) as small, Wire(server) as other:
        take_the_large_share(server, large, small)
        server.hold()
        with Wire(server) as given_up:
            given_up.go("d")
            # Answers that it does not take keep it: they come from the page cache, without memory.
            given_up.send(b"".join(header(READ, 128 * MIB, 64 * KIB) for _ in range(40)) +
                          header(WRITE, MIB, 512) + b"w" * 512 + header(READ, MIB, 16 * MIB))
            wait_for(lambda: server.metric("nbd_mirror_connections_waiting_for_memory") == 1)
            given_up.socket.shutdown(socket.SHUT_WR)
            wait_for(lambda: server.metric("nbd_mirror_connections_waiting_for_memory") == 0)
            small.send(b"h" * (8 * MIB - 64 * KIB))
            assert small.simple_reply() == (0, 1)
            other.go("other")
            assert other.write(0, b"o" * 4 * MIB) == 0


def test_a_write_that_needs_no_memory_any_more_does_not_stand_in_the_line_for_it(server):
    with Wire(server) as client, contextlib.ExitStack() as stack:
        large, small, *readers = (stack.enter_context(Wire(server)) for _ in range(7))
        take_the_large_share(server, large, small)
        for reader in readers:  # they take no answers
            reader.go("other")
            reader.send(b"".join(header(READ, 0, 60 * KIB) for _ in range(128)))
        wait_for(lambda: server.metric("nbd_mirror_buffer_bytes") > 96 * MIB - 64 * KIB)
        wait_for(lambda: server.metric("nbd_mirror_connections_waiting_for_memory") > 0)
        held = server.hold()
        client.go("d")
        client.send(header(WRITE, 0, 4 * KIB, cookie=1) + b"w" * 4 * KIB)
        wait_for(lambda: [each["in_flight"] for each in server.connections() if each["export"] == "d"] == [1])
        server.release(held)
        assert client.simple_reply() == (0, 1)
        stack.close()
        with Wire(server) as other:
            other.go("other")
            assert other.write(0, b"o" * 4 * MIB) == 0


def test_a_client_that_is_held_does_not_stand_in_the_line_for_memory(server):
    with Wire(server) as large, Wire(server) as held_client, Wire(server) as other:
        for client, name in ((large, "other"), (held_client, "d"), (other, "other")):
            client.go(name)
        large.send(header(WRITE, 0, 64 * MIB, cookie=1) + b"h" * MIB)
        wait_for(lambda: server.in_flight() == 1)
        held_client.send(header(WRITE, 0, 32 * MIB))
        wait_for(lambda: server.metric("nbd_mirror_connections_waiting_for_memory") == 1)
        held = server.hold()
        large.send(b"h" * (63 * MIB))
        assert large.simple_reply() == (0, 1)
        assert other.write(0, b"o" * (512 * KIB)) == 0
        server.release(held)
        held_client.send(b"d" * (32 * MIB))
        assert held_client.simple_reply()[0] == 0


@pytest.mark.parametrize("throttle", [{}, {"delay_us": 50_000}], ids=["held", "slowed down too"])
def test_however_many_clients_are_held_there_is_memory_for_others(server, throttle):
    if throttle:
        assert server.ask("POST", "/v1/exports/d/throttle", throttle)[0] == 200
    held = server.hold()
    with contextlib.ExitStack() as clients:
        waiting = [clients.enter_context(Wire(server)) for _ in range(20)]
        for client in waiting:
            client.go("d")
            sends(client, b"".join(header(WRITE, number * 64 * KIB, 64 * KIB) + b"A" * 64 * KIB
                                   for number in range(120)))
            time.sleep(0.05)  # as long as one is slowed down
        wait_for(lambda: server.metric("nbd_mirror_buffer_bytes") >= 24 * MIB)
        with Wire(server) as other:
            other.go("other")
            for _ in range(10):
                assert other.write(0, b"o" * 4 * KIB) == 0
                assert other.write(0, b"o" * 4 * MIB) == 0
        server.release(held)
        for client in waiting:
            assert client.simple_reply()[0] == 0


def test_a_write_that_is_too_large_to_be_taken_in_counts_as_waiting(server):
    with Wire(server) as client:
        client.go("d")
        held = server.hold()
        sends(client, header(WRITE, 0, 8 * MIB, cookie=3) + b"w" * 8 * MIB)
        wait_for(lambda: server.in_flight() == 1)
        # In the middle of it a reader is served.
        with Wire(server) as reader:
            reader.go("d")
            reader.request(READ, 0, 512)
            assert reader.simple_reply()[0] == 0
            assert reader.receive(512) == bytes(512)
        assert server.release(held)["longest_wait_ms"] > 0
        assert client.simple_reply() == (0, 3)


@pytest.mark.parametrize("throttle", [{}, {"delay_us": 50_000}], ids=["held", "slowed down"])
def test_who_has_said_goodbye_need_not_stay_for_the_answers(server, throttle):
    held = None if throttle else server.hold()
    if throttle:
        assert server.ask("POST", "/v1/exports/d/throttle", throttle)[0] == 200
    with Wire(server) as client:
        client.go("d")
        # The answer to the read is the first that cannot be sent.
        client.send(header(READ, 0, 512) +
                    b"".join(header(WRITE, n * 512, 512) + b"w" * 512 for n in range(16)) +
                    header(DISC))
    if held:
        wait_for(lambda: server.in_flight() == 16)
        server.release(held)
    wait_for(lambda: server.connections() == [])
    with Wire(server) as after:
        after.go("d")
        assert after.read(0, 8 * KIB) == b"w" * 8 * KIB


def test_what_came_before_a_goodbye_is_done_also_where_writes_wait_for_each_other(world):
    disk = make_disk(world.path("disk"), 64 * MIB)
    count = 200  # more than are taken at a time
    with world.server(f"d={disk},cache=direct") as server, Wire(server) as client:
        client.go("d")
        # Those of a part of a block need the disk for themselves.
        client.send(header(WRITE, 0, 4 * KIB, cookie=count) + b"w" * 4 * KIB +
                    b"".join(header(WRITE, MIB + n * 8 * KIB + 100, 100, cookie=n) + b"w" * 100
                             for n in range(count)) + header(DISC))
        client.socket.shutdown(socket.SHUT_WR)
        answers = [client.simple_reply() for _ in range(count + 1)]
        assert sorted(answers) == [(0, n) for n in range(count + 1)]


def test_writes_that_a_hold_has_let_go_are_not_dropped_for_it_any_more(world):
    disk = make_disk(world.path("disk"), 64 * MIB)
    count = 300
    with world.server(f"d={disk},cache=direct") as server, Wire(server) as client:
        client.go("d")
        held = server.hold()
        # Each odd one waits for the one before it, so that some always wait.
        sent = sends(client, b"".join(
            header(WRITE, n * 8 * KIB + (100 if n % 2 else 0), 100 if n % 2 else 4 * KIB, cookie=n) +
            b"w" * (100 if n % 2 else 4 * KIB) for n in range(count)) + header(DISC))
        wait_for(lambda: server.in_flight() == 128)
        server.release(held)
        sent.join()
        client.socket.shutdown(socket.SHUT_WR)
        assert sorted(client.simple_reply() for _ in range(count)) == [(0, n) for n in range(count)]
