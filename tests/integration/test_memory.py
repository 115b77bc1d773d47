# SPDX-License-Identifier: Apache-2.0
"""What the server's memory is bounded by, and what it gives back."""

import concurrent.futures
import re
import time

import pytest

from harness import GIB, KIB, MIB, SERVER, content, make_disk, wait_for
from nbd_client import connect, nbd
from wire import READ, WRITE, Wire, header


def buffer_bytes(server):
    return server.metric("nbd_mirror_buffer_bytes")


def resident_kib(server):
    with open(f"/proc/{server.pid}/smaps_rollup", encoding="ascii") as file:
        return int(re.search(r"^Rss:\s+(\d+)", file.read(), re.MULTILINE).group(1))


def test_many_large_writes_share_a_small_budget_and_all_arrive(world):
    disk = make_disk(world.path("disk"), GIB)
    with world.server(f"d={disk}", options=["--buffer-memory", "96M"]) as server:
        handles, writes, most = [], [], 0
        for client in range(4):
            handle = connect(server)
            handles.append(handle)
            for number in range(4):
                place = 4 * client + number
                data = bytearray(bytes([place + 1]) * (32 * MIB))
                buffer = nbd.Buffer.from_bytearray(data)
                writes.append((handle, handle.aio_pwrite(buffer, place * 32 * MIB), buffer))
        left = list(writes)
        while left:
            for handle in handles:
                while handle.aio_in_flight() > 0 and handle.poll(0) == 1:
                    pass  # as far as it gets now
            most = max(most, buffer_bytes(server))
            left = [each for each in left if not each[0].aio_command_completed(each[1])]
        assert 0 < most <= 96 * MIB
        with open(disk, "rb") as file:
            for place in range(16):
                file.seek(place * 32 * MIB)
                assert file.read(32 * MIB) == bytes([place + 1]) * (32 * MIB)


def test_a_client_that_asks_for_nothing_has_no_buffers(world):
    disk = make_disk(world.path("disk"), 64 * MIB)
    with world.server(f"d={disk}") as server:
        handle = connect(server)
        handle.pwrite(b"x" * 32 * MIB, 0)
        wait_for(lambda: buffer_bytes(server) == 0)
        def keeps():
            assert handle.pread(4096, 0) == b"x" * 4096
            return buffer_bytes(server) > 0

        # What a request had is kept for the next one for a while, which may be over before it is
        # looked at.
        wait_for(keeps)
        wait_for(lambda: buffer_bytes(server) == 0)
        # And it can go on.
        assert handle.pread(MIB, 0) == b"x" * MIB


def test_a_write_that_has_come_with_its_header_takes_no_buffer(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server, Wire(server) as client:
        client.go("d")
        assert client.write(0, b"a" * 4096) == 0
        assert buffer_bytes(server) == 0
        hold = server.hold()  # now it has to wait for something
        client.request(WRITE, 4096, 4096, data=b"b" * 4096)
        wait_for(lambda: buffer_bytes(server) == 4096)
        server.release(hold)
        assert client.simple_reply()[0] == 0
    assert content(disk, 0, 8192) == b"a" * 4096 + b"b" * 4096


SANITIZED = any(name in SERVER.read_bytes() for name in (b"__asan_init", b"__tsan_init"))


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's own memory is counted")
def test_five_hundred_idle_clients(world):
    disk = make_disk(world.path("disk"), 4 * MIB)
    with world.server(f"d={disk}", options=["--max-connections", "501"]) as server:
        clients = []

        def connect(count):
            for _ in range(count):
                client = Wire(server)
                clients.append(client)
                client.negotiate_structured()
                client.go("d")
                assert client.write(0, b"x" * MIB) == 0 and len(client.read(0, MIB)) == MIB

        connect(1)
        one = resident_kib(server)
        connect(500)
        wait_for(lambda: buffer_bytes(server) == 0)
        each = (resident_kib(server) - one) / 500
        assert each <= 256, f"{each} KiB each"
        for client in clients:
            client.socket.close()


def test_the_limits_are_told_as_they_are_in_force(world):
    disk = make_disk(world.path("disk"), MIB)
    options = ["--buffer-memory", "96M", "--max-connections", "7"]
    with world.server(f"d={disk}", options=options) as server:
        assert server.metric("nbd_mirror_buffer_limit_bytes") == 96 * MIB
        assert server.metric("nbd_mirror_connections_limit") == 7
    with world.server(f"d={disk}", options=options, before=["prlimit", "--nofile=150"]) as server:
        assert server.metric("nbd_mirror_connections_limit") == 5  # of 21 descriptors


def test_who_holds_memory_and_stands_still_does_not_stop_the_others(world):
    disk = make_disk(world.path("disk"), 256 * MIB, [(0, MIB)])
    with world.server(f"d={disk}", options=["--buffer-memory", "128M"]) as server, \
            Wire(server) as stuck, Wire(server) as small, Wire(server, limit=60) as large:
        for client in (stuck, small, large):
            client.go("d")
        stuck.send(header(WRITE, 0, 64 * MIB))
        wait_for(lambda: buffer_bytes(server) == 64 * MIB)
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert server.metric("nbd_mirror_connections_waiting_for_memory") == 0
            written = pool.submit(large.write, 64 * MIB, b"y" * (64 * MIB))
            wait_for(lambda: server.metric("nbd_mirror_connections_waiting_for_memory") == 1)
            # Small requests find memory all the time, large ones when the server has lost patience.
            while not written.done():
                assert small.write(MIB, b"z" * 4096) == 0
                assert small.read(MIB, 4096) == b"z" * 4096
            assert written.result() == 0
            assert server.metric("nbd_mirror_connections_waiting_for_memory") == 0
        # Ten seconds; half a request by itself would have five minutes.
        assert 9 < time.monotonic() - begun < 60
        assert stuck.closed()
        server.wait_for_message("it stopped in the middle of a request")


def test_answers_that_nobody_takes_are_dropped_when_others_need_the_memory(world):
    disk = make_disk(world.path("disk"), 256 * MIB)
    with open(disk, "r+b") as file:
        file.write(b"x" * 4096)  # one page of data: the rest is read into a buffer
    options = ["--buffer-memory", "96M"]
    with world.server(f"d={disk},cache=direct", options=options) as server, \
            Wire(server) as stuck, Wire(server, limit=60) as other:
        stuck.go("d")
        other.go("d")
        stuck.send(header(READ, 0, 64 * MIB))
        wait_for(lambda: buffer_bytes(server) == 64 * MIB)
        assert other.read(0, 32 * MIB)[:4096] == b"x" * 4096
        wait_for(lambda: "it does not take its answers" in server.messages())


def test_answers_that_are_taken_slowly_are_taken(world):
    disk = make_disk(world.path("disk"), 256 * MIB)
    with open(disk, "r+b") as file:
        file.write(b"x" * 4096)
    options = ["--buffer-memory", "96M"]
    with world.server(f"d={disk},cache=direct", options=options) as server, \
            Wire(server, tcp=True) as slow, Wire(server, limit=60) as other:
        slow.go("d")
        other.go("d")
        slow.send(header(READ, 0, 64 * MIB))
        wait_for(lambda: buffer_bytes(server) == 64 * MIB)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            read = pool.submit(other.read, 0, 32 * MIB)
            for _ in range(5):  # four times what is called progress, half as long again
                slow.receive(128 * KIB)
                assert not concurrent.futures.wait([read], timeout=3).done
            slow.socket.close()
            assert len(read.result()) == 32 * MIB
        assert "it does not take its answers" not in server.messages()


@pytest.mark.parametrize("size", ["95M", "much", "0", "-1"])
def test_a_budget_that_holds_no_request_is_refused(world, size):
    disk = make_disk(world.path("disk"), MIB)
    with pytest.raises(AssertionError, match="buffer-memory"):
        with world.server(f"d={disk}", options=[f"--buffer-memory={size}"], expect=(2,)):
            pass
