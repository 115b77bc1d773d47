# SPDX-License-Identifier: Apache-2.0
"""What a mirror has sent over a connection that was lost must not stay on what it has sent since:
an nbd-mirror-server fences earlier connections off, at other servers the mirror looks again."""

import contextlib

import pytest

import wire
from harness import MIB, content, make_disk, same_content, wait_for
from nbd_client import write
from peers import LateTarget, Relay
from wire import Wire, go_data, header

BLOCK = 4096
SLOTS = 128  # requests that the server takes from one connection at a time


@pytest.fixture
def disk(world):
    return make_disk(world.path("disk"), MIB)


def connect(server, epoch, session="vm1"):
    client = Wire(server)
    client.negotiate_structured()
    kind, contexts = client.set_contexts("d", f"nbd-mirror:session:{session}:{epoch}")
    assert kind == wire.ACK and len(contexts) == 1
    client.go("d")
    return client


@contextlib.contextmanager
def hold(server):
    held = server.hold()
    yield
    server.release(held)


def test_a_write_unread_in_the_socket_of_a_lost_connection_never_lands(server, disk):
    old = connect(server, 1)
    with hold(server):
        # More than the server takes at a time: the last ones stay in the socket.
        old.send(b"".join(header(wire.WRITE, 0, BLOCK, cookie=n) + b"o" * BLOCK
                          for n in range(SLOTS + 8)))
        wait_for(lambda: server.in_flight() == SLOTS)
        old.socket.close()
        fresh = connect(server, 2)
        cookie = fresh.request(wire.WRITE, 0, BLOCK, data=b"n" * BLOCK)
    assert fresh.any_reply() == (0, cookie)
    fresh.socket.close()
    wait_for(lambda: not server.connections())
    assert content(disk, 0, BLOCK) == b"n" * BLOCK


def test_all_connections_of_the_earlier_epoch_end_and_others_do_not(server):
    old, old_too, other = connect(server, 1), connect(server, 1), connect(server, 1, "vm2")
    plain = Wire(server)
    plain.go("d")
    connect(server, 2)
    assert old.closed() and old_too.closed()
    server.wait_for_message("later connections of the same mirror have taken its place")
    for client in (other, plain):
        assert client.write(0, b"x" * BLOCK) == 0


def test_a_client_that_is_still_negotiating_ends_too(server):
    with Wire(server) as old:
        old.negotiate_structured()
        old.set_contexts("d", "nbd-mirror:session:vm1:1")
        connect(server, 2)
        assert old.closed()


def test_an_earlier_epoch_that_comes_late_is_refused_and_cannot_go_on(server):
    connect(server, 2).socket.close()
    with Wire(server) as late:
        late.negotiate_structured()
        assert late.set_contexts("d", "nbd-mirror:session:vm1:1") == (wire.ERR_POLICY, [])
        assert late.in_step("d")
        assert late.ask(wire.GO, go_data("d"))[0] == wire.ERR_POLICY
    with Wire(server) as late:
        late.negotiate_structured()
        late.set_contexts("d", "nbd-mirror:session:vm1:1")
        late.option(wire.EXPORT_NAME, b"d")
        assert late.closed()


def test_the_context_has_nothing_to_say_of_the_disk(server):
    client = Wire(server)
    client.negotiate_structured()
    _, contexts = client.set_contexts("d", "nbd-mirror:session:vm1:1", "base:allocation")
    client.go("d")
    assert [name for _, name in contexts] == ["nbd-mirror:session:vm1:1", "base:allocation"]
    status = client.block_status(0, MIB)
    assert status[contexts[0][0]] == [(MIB, 0)]


@pytest.mark.parametrize("name", ["nbd-mirror:session:vm1", "nbd-mirror:session::1",
                                  "nbd-mirror:session:vm1:x", "nbd-mirror:session:"])
def test_a_malformed_session_is_no_context(server, name):
    with Wire(server) as client:
        client.negotiate_structured()
        assert client.set_contexts("d", name) == (wire.ACK, [])


def test_a_write_that_lands_late_at_a_server_without_fencing_is_undone_before_the_hand_over(world):
    """It has 30 seconds to land, so long does this test take."""
    offset = 4 * MIB
    source_disk = make_disk(world.path("source"), 8 * MIB, [(0, 8 * MIB)])
    target_disk = make_disk(world.path("target"), 8 * MIB)
    with world.server(f"d={source_disk}") as source, \
            LateTarget(world, target_disk, offset) as target, Relay(world, target) as relay, \
            world.mirror(source.source("d"), relay.uri()) as mirror:
        wait_for(target.stalled.exists)
        write(source, offset, b"new" * 1024)
        relay.cut()
        mirror.wait_for_message("is not handed over for 30 s")
        new = content(source_disk, offset, BLOCK)
        wait_for(lambda: content(target_disk, offset, BLOCK) == new)
        mirror.wait_for_phase("catching_up")
        target.land()
        wait_for(lambda: content(target_disk, offset, BLOCK) != new)
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert same_content(source_disk, target_disk)
