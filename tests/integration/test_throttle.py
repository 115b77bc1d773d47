# SPDX-License-Identifier: Apache-2.0
"""Writers of an export are slowed down, and nothing else is."""

import time

import pytest

from harness import KIB, MIB, make_disk, wait_for
from nbd_client import connect, nbd


@pytest.fixture
def server(world):
    disk = make_disk(world.path("disk"), 16 * MIB, [(0, MIB)])
    with world.server(f"d={disk}") as running:
        yield running


@pytest.fixture
def client(server):
    handle = connect(server)
    return handle


def throttle(server, **how):
    return server.ask("POST", "/v1/exports/d/throttle", how)


def seconds(call, count):
    begin = time.monotonic()
    for number in range(count):
        call(number)
    return time.monotonic() - begin


@pytest.mark.parametrize("write", [
    lambda handle, at: handle.pwrite(b"x" * 4096, at),
    lambda handle, at: handle.zero(4096, at),
    lambda handle, at: handle.trim(4096, at)])
def test_each_write_is_delayed_and_reads_and_flushes_are_not(server, client, write):
    assert throttle(server, delay_us=20000) == (200, {"throttle": {"delay_us": 20000}})
    assert server.export("d")["throttle"] == {"delay_us": 20000}
    assert "nbd_mirror_export_throttled" in server.ask("GET", "/metrics")[1]
    assert seconds(lambda n: write(client, n * 4096), 20) >= 20 * 0.02
    assert seconds(lambda n: client.pread(4096, n * 4096), 100) < 100 * 0.02
    assert seconds(lambda _: client.flush(), 100) < 100 * 0.02
    assert throttle(server) == (200, {"throttle": None})
    assert seconds(lambda n: write(client, n * 4096), 100) < 100 * 0.02


def test_writes_that_come_together_wait_together(server, client):
    throttle(server, delay_us=50000)
    begin = time.monotonic()
    buffer = nbd.Buffer.from_bytearray(bytearray(b"x" * 4096))
    cookies = [client.aio_pwrite(buffer, number * 4096) for number in range(32)]
    while not all(client.aio_command_completed(cookie) for cookie in cookies[-1:]):
        client.poll(-1)
    assert 0.05 <= time.monotonic() - begin < 32 * 0.05


def test_all_writers_together_keep_a_rate(server):
    clients = [nbd.NBD() for _ in range(2)]
    for handle in clients:
        handle.connect_uri(server.uri("d"))
    assert throttle(server, bytes_per_s=4 * MIB)[0] == 200
    # What is due at once is admitted at once: one write's worth.
    took = seconds(lambda n: clients[n % 2].pwrite(b"x" * (64 * KIB), n * 64 * KIB), 33)
    assert took >= 32 * 64 * KIB / (4 * MIB)


def test_a_throttle_with_a_lease_ends_by_itself(server, client):
    throttle(server, delay_us=50000, lease_ms=300)
    assert server.export("d")["throttle"] is not None
    wait_for(lambda: server.export("d")["throttle"] is None)
    assert seconds(lambda n: client.pwrite(b"x" * 4096, n * 4096), 100) < 100 * 0.05


def test_a_write_that_is_slowed_down_is_held_too(server, client):
    throttle(server, delay_us=50000)
    cookie = client.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"y" * 512)), 0)
    hold = server.hold()
    client.poll(0)
    server.release(hold)
    while not client.aio_command_completed(cookie):
        client.poll(-1)
    assert client.pread(512, 0) == b"y" * 512


def test_what_is_slowed_down_is_done_and_answered_at_a_stop(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        handle = connect(server)
        throttle(server, delay_us=50000)
        cookie = handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"z" * 512)), 0)
        wait_for(lambda: server.ask("GET", "/v1/connections")[1]["connections"][0]["in_flight"])
        assert server.stop() == 0
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)
    assert disk.read_bytes()[:512] == b"z" * 512


@pytest.mark.parametrize("how", [
    {"delay_us": 50001}, {"delay_us": -1}, {"bytes_per_s": 65535}, {"speed": 1},
    {"delay_us": 1, "bytes_per_s": 65536}, {"delay_us": 1, "lease_ms": 0}])
def test_a_throttle_that_makes_no_sense_is_refused(server, how):
    assert throttle(server, **how)[0] == 400
    assert server.export("d")["throttle"] is None
