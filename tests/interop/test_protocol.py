# SPDX-License-Identifier: Apache-2.0
"""The server against raw bytes: what the specification asks for, and what bad clients send."""

import os
import random
import select
import socket
import struct
import time

import pytest

import wire
from harness import KIB, MIB, allocated_bytes, content, make_disk, wait_for
from wire import Wire, context_data, go_data, header, string

TRANSPORTS = pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
DISK_BYTES = 4 * MIB


@pytest.fixture
def disk(world):
    return make_disk(world.path("disk"), DISK_BYTES, [(0, MIB)])


@pytest.fixture(params=["structured", "extended"])
def served(raw, request):
    """In transmission, with replies in chunks."""
    raw.negotiate_extended() if request.param == "extended" else raw.negotiate_structured()
    raw.go("d")
    return raw


def threads_are_back(server, count):
    wait_for(lambda: len(server.cpu_threads()) == count, what="the end of the client's thread")


def still_serves(server, disk):
    with Wire(server) as connection:
        connection.negotiate_structured()
        connection.go("d")
        return connection.read(0, 4 * KIB) == content(disk, 0, 4 * KIB)


# --- Handshake ---

@pytest.mark.parametrize("code", [0, 4, 12, 99, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("data", [b"", b"x" * 1000])
def test_unknown_option_is_unsupported_and_the_handshake_goes_on(raw, code, data):
    assert raw.ask(code, data) == (wire.ERR_UNSUP, [])
    assert raw.in_step("d")
    raw.go("d")


def test_long_option_is_refused_and_the_handshake_goes_on(raw):
    assert raw.ask(wire.GO, string("d" * 100_000) + bytes(2)) == (wire.ERR_TOO_BIG, [])
    assert raw.in_step("d")


@pytest.mark.parametrize("length", [0, 65536, 65537, MIB])
@pytest.mark.parametrize("code", [99, wire.STARTTLS])
def test_what_is_not_known_is_unsupported_however_long_it_is(raw, code, length):
    assert raw.ask(code, bytes(length)) == (wire.ERR_UNSUP, [])
    assert raw.in_step("d")


def test_option_of_four_gigabytes_is_not_waited_for(raw, server, disk):
    raw.option(99, length=0xFFFFFFFF)
    assert raw.closed()
    assert still_serves(server, disk)


SMUGGLED = struct.pack(">QII", wire.OPTION_MAGIC, wire.ABORT, 0)


@pytest.mark.parametrize("code", [wire.INFO, wire.GO])
def test_rest_of_an_option_is_not_taken_for_the_next_option(raw, code):
    kind, before = raw.ask(code, go_data("d") + SMUGGLED)
    assert (kind, before) == (wire.ERR_INVALID, [])
    assert raw.in_step("d")


@pytest.mark.parametrize("code", [wire.LIST_CONTEXT, wire.SET_CONTEXT])
def test_rest_of_a_context_option_is_not_taken_for_the_next_option(raw, code):
    raw.negotiate_structured()
    kind, before = raw.ask(code, context_data("d", "base:allocation") + SMUGGLED)
    assert (kind, before) == (wire.ERR_INVALID, [])
    assert raw.in_step("d")


@pytest.mark.parametrize("code", [wire.LIST, wire.STRUCTURED])
def test_option_without_data_is_refused_with_data(raw, code):
    assert raw.ask(code, SMUGGLED) == (wire.ERR_INVALID, [])
    assert raw.in_step("d")


@pytest.mark.parametrize("data", [
    b"", b"\0", bytes(4), bytes(5), string("d"), string("d") + b"\0",
    struct.pack(">I", 1000) + b"d\0\0", struct.pack(">I", 0xFFFFFFFF) + b"d\0\0",
    go_data("d", 1)[:-1], string("d") + struct.pack(">H", 0xFFFF), go_data("d") + b"\0",
])
@pytest.mark.parametrize("code", [wire.INFO, wire.GO])
def test_malformed_info_and_go_are_invalid_and_the_handshake_goes_on(raw, code, data):
    assert raw.ask(code, data) == (wire.ERR_INVALID, [])
    assert raw.in_step("d")


@pytest.mark.parametrize("data", [
    b"", bytes(3), string("d"), string("d") + bytes(3), string("d") + struct.pack(">I", 1),
    string("d") + struct.pack(">II", 1, 1000) + b"base:allocation",
    string("d") + struct.pack(">I", 0xFFFFFFFF),
    string("d") + struct.pack(">II", 1, 0xFFFFFFFF),
    struct.pack(">I", 0xFFFFFFFF) + bytes(8),
])
@pytest.mark.parametrize("code", [wire.LIST_CONTEXT, wire.SET_CONTEXT])
def test_malformed_context_options_are_invalid_and_the_handshake_goes_on(raw, code, data):
    raw.negotiate_structured()
    assert raw.ask(code, data) == (wire.ERR_INVALID, [])
    assert raw.in_step("d")


@pytest.mark.parametrize("name", [b"d\0", b"d\0x", b"\0", b"\0d", b"dd", b"D", b""])
def test_only_the_exact_name_is_an_export(raw, name):
    kind, _ = raw.ask(wire.GO, go_data(name))
    assert kind in (wire.ERR_INVALID, wire.ERR_UNKNOWN)
    kind, _ = raw.ask(wire.INFO, go_data(name))
    assert kind in (wire.ERR_INVALID, wire.ERR_UNKNOWN)
    raw.go("d")


@pytest.mark.parametrize("name", [b"d\0", b"d\0x", b"", b"nothing", b"x" * 4096])
def test_export_name_of_no_export_ends_the_connection_only(raw, server, disk, name):
    raw.option(wire.EXPORT_NAME, name)
    assert raw.closed()
    assert still_serves(server, disk)


def test_the_empty_name_is_a_name(world, disk):
    with world.server(disk) as server, Wire(server) as raw:
        assert raw.list_exports() == [""]
        assert raw.go("")[0] == DISK_BYTES


@pytest.mark.parametrize("flags, padding", [(1, 124), (3, 0)])
def test_export_name_is_answered_with_size_flags_and_agreed_padding(server, disk, flags, padding):
    with Wire(server, flags=flags) as raw:
        raw.option(wire.EXPORT_NAME, b"d")
        size, transmission = struct.unpack(">QH", raw.receive(10))
        assert size == DISK_BYTES and transmission & 1
        assert raw.receive(padding) == bytes(padding)
        assert raw.read(100, 5000) == content(disk, 100, 5000)


def test_info_says_what_go_says(raw):
    kind, replies = raw.ask(wire.INFO, go_data("d", 0, 1, 2, 3, 77))
    assert kind == wire.ACK
    told = {struct.unpack(">H", data[:2])[0]: data[2:] for _, data in replies}
    size, flags = struct.unpack(">QH", told[0])
    assert told.get(1, b"d") == b"d"
    smallest, preferred, largest = struct.unpack(">III", told[3])
    assert size == DISK_BYTES
    assert smallest & (smallest - 1) == 0 and preferred & (preferred - 1) == 0
    assert smallest <= 64 * KIB and max(512, smallest) <= preferred <= largest
    assert raw.go("d") == (size, flags)


def test_what_is_asked_for_twice_is_told_once(raw):
    kind, replies = raw.ask(wire.INFO, go_data("d", *[1, 3] * 1000))
    assert kind == wire.ACK
    told = [struct.unpack(">H", data[:2])[0] for _, data in replies]
    assert sorted(told) == [0, 1, 3]
    assert [data[2:] for _, data in replies if data[:2] == b"\0\1"] == [b"d"]


def test_abort_is_acknowledged_and_ends_the_connection(raw, server, disk):
    assert raw.ask(wire.ABORT) == (wire.ACK, [])
    assert raw.closed()
    assert still_serves(server, disk)


def test_abort_by_a_client_that_does_not_wait_is_harmless(server, disk):
    before = len(server.cpu_threads())
    for _ in range(20):
        with Wire(server) as raw:
            raw.option(wire.ABORT)
    threads_are_back(server, before)
    assert still_serves(server, disk)


def test_unknown_client_flags_end_the_connection(server, disk):
    with Wire(server, flags=0x80000003) as raw:
        assert raw.closed()
    assert still_serves(server, disk)


def test_option_without_its_magic_ends_the_connection(raw, server, disk):
    raw.send(struct.pack(">QII", 0x1234, wire.LIST, 0))
    assert raw.closed()
    assert still_serves(server, disk)


def test_options_arriving_byte_by_byte_are_understood(raw):
    for byte in struct.pack(">QII", wire.OPTION_MAGIC, wire.LIST, 0):
        raw.send(bytes([byte]))
    assert raw.option_reply()[1] == wire.SERVER
    assert raw.option_reply()[1] == wire.ACK


def test_requests_right_behind_go_are_served(server, disk):
    with Wire(server, flags=None) as raw:
        data = go_data("d")
        raw.send(struct.pack(">I", 3) + struct.pack(">QII", wire.OPTION_MAGIC, wire.GO, len(data))
                 + data + header(wire.READ, 512, 1024, cookie=5))
        while raw.option_reply()[1] != wire.ACK:
            pass
        assert raw.simple_reply() == (0, 5)
        assert raw.receive(1024) == content(disk, 512, 1024)


# --- Metadata contexts ---

@pytest.mark.parametrize("code", [wire.LIST_CONTEXT, wire.SET_CONTEXT])
def test_contexts_of_an_unknown_export_are_an_unknown_export(raw, code):
    raw.negotiate_structured()
    assert raw.ask(code, context_data("nothing", "base:allocation")) == (wire.ERR_UNKNOWN, [])
    assert raw.in_step("d")


def test_contexts_without_structured_replies_are_refused(raw):
    assert raw.ask(wire.SET_CONTEXT, context_data("d", "base:allocation")) == (wire.ERR_INVALID, [])
    assert raw.in_step("d")


def test_a_context_asked_for_twice_is_selected_once(raw):
    raw.negotiate_structured()
    kind, contexts = raw.set_contexts("d", *["base:allocation"] * 5)
    assert kind == wire.ACK and [name for _, name in contexts] == ["base:allocation"]
    raw.go("d")
    assert list(raw.block_status(0, DISK_BYTES)) == [contexts[0][0]]


def test_unknown_contexts_are_passed_over(raw):
    raw.negotiate_structured()
    kind, contexts = raw.set_contexts("d", "nobody:knows", "base:allocation", "x", "base:nothing",
                                      "nbd-mirror:dirty-bitmap:nothing", "")
    assert kind == wire.ACK and [name for _, name in contexts] == ["base:allocation"]


def test_listing_contexts_selects_none(raw):
    raw.negotiate_structured()
    for queries in [(), ("base:",), ("base:allocation",)]:
        kind, replies = raw.ask(wire.LIST_CONTEXT, context_data("d", *queries))
        assert kind == wire.ACK
        assert [data[4:] for _, data in replies] == [b"base:allocation"]
    raw.go("d")
    assert raw.block_status(0, DISK_BYTES) == wire.EINVAL
    assert raw.read(0, 512, 0)


def test_the_last_selection_of_contexts_counts(raw):
    raw.negotiate_structured()
    assert len(raw.set_contexts("d", "base:allocation")[1]) == 1
    assert raw.set_contexts("d", "nobody:knows") == (wire.ACK, [])
    raw.go("d")
    assert raw.block_status(0, DISK_BYTES) == wire.EINVAL


def test_a_refused_selection_leaves_none(raw):
    raw.negotiate_structured()
    assert len(raw.set_contexts("d", "base:allocation")[1]) == 1
    assert raw.set_contexts("nothing", "base:allocation")[0] == wire.ERR_UNKNOWN
    raw.go("d")
    assert raw.block_status(0, DISK_BYTES) == wire.EINVAL


def test_a_selection_that_is_too_long_leaves_none(raw):
    raw.negotiate_structured()
    assert len(raw.set_contexts("d", "base:allocation")[1]) == 1
    assert raw.set_contexts("d", *["x" * 4000] * 20)[0] == wire.ERR_TOO_BIG
    raw.go("d")
    assert raw.block_status(0, DISK_BYTES) == wire.EINVAL


def test_contexts_selected_for_another_export_do_not_count(world, disk):
    other = make_disk(world.path("other"), MIB)
    with world.server(f"d={disk}", f"other={other}") as server, Wire(server) as raw:
        raw.negotiate_structured()
        assert len(raw.set_contexts("other", "base:allocation")[1]) == 1
        raw.go("d")
        assert raw.block_status(0, MIB) == wire.EINVAL
        assert len(raw.read(0, 512)) == 512


def test_block_status_covers_the_request_from_its_start(raw):
    raw.negotiate_structured()
    _, [(identity, _)] = raw.set_contexts("d", "base:allocation")
    raw.go("d")
    extents = raw.block_status(0, DISK_BYTES)[identity]
    assert extents == [(MIB, 0), (3 * MIB, 3)]
    assert raw.block_status(MIB - 512, 1024)[identity][0] == (512, 0)


def test_req_one_brings_one_extent_within_the_request(raw):
    raw.negotiate_structured()
    _, [(identity, _)] = raw.set_contexts("d", "base:allocation")
    raw.go("d")
    assert raw.block_status(0, DISK_BYTES, wire.REQ_ONE)[identity] == [(MIB, 0)]
    assert raw.block_status(0, 64 * KIB, wire.REQ_ONE)[identity] == [(64 * KIB, 0)]
    assert raw.block_status(2 * MIB, 4096, wire.REQ_ONE)[identity] == [(4096, 3)]


# --- Transmission ---

OUTSIDE = [(DISK_BYTES, 512), (DISK_BYTES - 511, 512), (DISK_BYTES + 1, 1), (0, DISK_BYTES + 1),
           (1 << 63, 512), ((1 << 64) - 512, 512), ((1 << 64) - 1, 1), ((1 << 64) - 1, 70000)]


@pytest.mark.parametrize("offset, length", OUTSIDE)
@TRANSPORTS
def test_write_past_the_end_is_enospc_and_the_stream_stays_in_step(
        server, disk, tcp, offset, length):
    with Wire(server, tcp) as raw:
        raw.go("d")
        # Its payload looks like requests.
        payload = (header(wire.DISC) * (length // 28 + 1))[:length]
        before = disk.read_bytes()
        assert raw.write(offset, payload) == wire.ENOSPC
        assert raw.read(700, 900) == before[700:1600]
        assert disk.read_bytes() == before


@pytest.mark.parametrize("offset, length", OUTSIDE)
def test_other_requests_past_the_end_are_refused_and_the_stream_stays_in_step(
        raw, disk, offset, length):
    raw.negotiate_structured()
    raw.set_contexts("d", "base:allocation")
    raw.go("d")
    before = disk.read_bytes()
    assert raw.read(offset, length) == wire.EINVAL
    assert raw.do(wire.WRITE_ZEROES, offset, length) == wire.ENOSPC
    assert raw.do(wire.TRIM, offset, length) in (wire.EINVAL, wire.ENOSPC)
    assert raw.block_status(offset, length) == wire.EINVAL
    assert raw.read(0, 4096) == before[:4096]
    assert disk.read_bytes() == before and os.path.getsize(disk) == DISK_BYTES


def test_read_past_the_end_without_structured_replies_is_an_error_without_data(plain, disk):
    assert plain.read(DISK_BYTES - 1, 2) == wire.EINVAL
    assert plain.read(0, 10) == content(disk, 0, 10)


def test_last_byte_can_be_read_written_and_zeroed(served, disk):
    assert served.write(DISK_BYTES - 1, b"z") == 0
    assert served.read(DISK_BYTES - 1, 1) == b"z"
    assert served.do(wire.WRITE_ZEROES, DISK_BYTES - 1, 1) == 0
    assert content(disk, DISK_BYTES - 1, 1) == b"\0"
    assert served.do(wire.TRIM, DISK_BYTES - 1, 1) == 0
    assert os.path.getsize(disk) == DISK_BYTES


@pytest.mark.parametrize("command", [wire.WRITE, wire.WRITE_ZEROES, wire.TRIM])
def test_changing_a_read_only_export_is_eperm_and_changes_nothing(world, disk, command):
    before = disk.read_bytes()
    with world.server(f"d={disk},ro") as server, Wire(server) as raw:
        raw.negotiate_structured()
        _, flags = raw.go("d")
        assert flags & 2
        payload = (header(wire.DISC) * 200)[:4096] if command == wire.WRITE else b""
        assert raw.do(command, 0, 4096, data=payload) == wire.EPERM
        assert raw.do(wire.FLUSH) == 0
        assert raw.read(0, 4096) == before[:4096]
    assert disk.read_bytes() == before


def test_fast_zero_zeroes_or_says_at_once_that_it_cannot(served, disk):
    for offset, length in [(0, 64 * KIB), (100, 777), (2 * MIB, MIB)]:
        before = content(disk, offset, length)
        error = served.do(wire.WRITE_ZEROES, offset, length, wire.FAST_ZERO)
        assert error in (0, wire.ENOTSUP)
        expected = before if error else bytes(length)
        assert served.read(offset, length) == expected


@pytest.mark.parametrize("flags", [0, wire.NO_HOLE, wire.FUA, wire.NO_HOLE | wire.FUA])
def test_write_zeroes_zeroes_exactly_its_range(served, disk, flags):
    before = disk.read_bytes()
    for offset, length in [(4096, 8192), (30_001, 70_003), (200_000, 1), (300_000, 4097)]:
        assert served.do(wire.WRITE_ZEROES, offset, length, flags) == 0
        expected = before[:offset] + bytes(length) + before[offset + length:]
        assert disk.read_bytes() == expected
        before = expected


def test_no_hole_leaves_the_blocks_allocated(served, disk):
    full = allocated_bytes(disk)
    assert served.do(wire.WRITE_ZEROES, 0, 256 * KIB, wire.NO_HOLE) == 0
    assert served.read(0, 256 * KIB) == bytes(256 * KIB)
    assert allocated_bytes(disk) >= full
    assert served.do(wire.WRITE_ZEROES, 512 * KIB, 256 * KIB) == 0
    assert served.read(512 * KIB, 256 * KIB) == bytes(256 * KIB)
    assert allocated_bytes(disk) <= full - 256 * KIB + 16 * KIB


def test_read_with_df_is_one_chunk(served, disk):
    cookie = served.request(wire.READ, 512 * KIB, MIB, wire.DF)
    flags, kind, answered, payload = served.chunk()
    assert (flags, kind, answered) == (wire.DONE, wire.CHUNK_DATA, cookie)
    assert payload[8:] == content(disk, 512 * KIB, MIB)


def test_read_over_data_and_hole_is_complete(served, disk):
    assert served.read(512 * KIB + 7, 3 * MIB) == content(disk, 512 * KIB + 7, 3 * MIB)
    assert served.read(3 * MIB, MIB) == bytes(MIB)


def test_hole_is_not_sent_as_data(served):
    cookie = served.request(wire.READ, 2 * MIB, MIB)
    chunks = served.chunks(cookie)
    assert [kind for kind, _ in chunks] == [wire.CHUNK_HOLE]


@pytest.mark.parametrize("command", [wire.READ, wire.WRITE, wire.TRIM, wire.WRITE_ZEROES,
                                     wire.CACHE, wire.BLOCK_STATUS])
def test_zero_length_is_answered_and_the_stream_stays_in_step(server, disk, command):
    with Wire(server) as raw:
        raw.negotiate_structured()
        raw.set_contexts("d", "base:allocation")
        raw.go("d")
        before = disk.read_bytes()
        cookie = raw.request(command, 512, 0)
        if raw.socket.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)[:1] == b"\x67":
            error, answered = raw.simple_reply()
            assert answered == cookie and error in (0, wire.EINVAL)
        else:
            raw.chunks(cookie)
        assert raw.read(0, 512) == before[:512]
        assert disk.read_bytes() == before


@pytest.mark.parametrize("command", [8, 9, 99, 0xFFFF])
@pytest.mark.parametrize("structured", [False, True])
def test_unknown_command_is_einval_and_the_stream_stays_in_step(raw, disk, command, structured):
    if structured:
        raw.negotiate_structured()
    raw.go("d")
    assert raw.do(command, 0, 512) == wire.EINVAL
    assert raw.read(0, 512) == content(disk, 0, 512)


def test_request_without_its_magic_ends_this_connection_only(server, disk):
    with Wire(server) as good, Wire(server) as bad:
        good.go("d")
        bad.go("d")
        bad.send(struct.pack(">I", 0x12345678) + header(wire.READ, 0, 512)[4:])
        assert bad.closed()
        assert good.read(0, 512) == content(disk, 0, 512)


def test_write_before_a_bad_request_is_done(server, disk):
    data = random.Random(1).randbytes(4096)
    with Wire(server) as raw:
        raw.go("d")
        raw.send(header(wire.WRITE, 8192, 4096, cookie=1) + data + bytes(28))
        wait_for(lambda: content(disk, 8192, 4096) == data, what="the write")
        while raw.socket.recv(1000):
            pass


@TRANSPORTS
def test_request_cut_into_bytes_is_understood(server, disk, tcp):
    with Wire(server, tcp) as raw:
        raw.go("d")
        data = b"in pieces"
        for byte in header(wire.WRITE, 5, len(data), cookie=8) + data:
            raw.send(bytes([byte]))
        assert raw.simple_reply() == (0, 8)
        assert content(disk, 5, len(data)) == data


def test_cookies_come_back_as_they_were(plain):
    for cookie in [0, 1, (1 << 64) - 1, 0x0123456789ABCDEF, 1]:
        plain.request(wire.FLUSH, cookie=cookie)
        assert plain.simple_reply() == (0, cookie)


@TRANSPORTS
def test_each_of_many_pipelined_requests_is_answered_once(server, disk, tcp):
    with Wire(server, tcp) as raw:
        raw.go("d")
        before = disk.read_bytes()
        offsets = [random.Random(n).randrange(DISK_BYTES - 5000) for n in range(1000)]
        raw.send(b"".join(header(wire.READ, offset, 4999, cookie=n)
                          for n, offset in enumerate(offsets)))
        answered = set()
        for _ in offsets:
            error, cookie = raw.simple_reply()
            assert error == 0 and cookie not in answered
            answered.add(cookie)
            assert raw.receive(4999) == before[offsets[cookie]:offsets[cookie] + 4999]


@TRANSPORTS
def test_client_that_takes_no_replies_holds_up_nobody_and_gets_them_all(server, disk, tcp):
    count, length = 1000, 512 * KIB
    expected = content(disk, 0, length)
    with Wire(server, tcp) as lazy, Wire(server, tcp) as brisk:
        lazy.go("d")
        brisk.go("d")
        lazy.send(b"".join(header(wire.READ, 0, length, cookie=n) for n in range(count)))
        for _ in range(20):
            assert brisk.read(0, 4096) == expected[:4096]
        for _ in range(count):
            assert lazy.simple_reply()[0] == 0
            assert lazy.receive(length) == expected


@pytest.mark.parametrize("size", [32 * MIB, 64 * MIB])
@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
@TRANSPORTS
def test_large_payload_goes_both_ways(world, size, structured, tcp):
    disk = make_disk(world.path("disk"), size + 4096)
    data = random.Random(size).randbytes(size)
    with world.server(f"d={disk}") as server, Wire(server, tcp, limit=60) as raw:
        if structured:
            raw.negotiate_structured()
        raw.go("d")
        assert raw.write(1000, data) == 0
        assert raw.read(1000, size) == data
        assert content(disk, 1000, size) == data


@pytest.mark.parametrize("style", ["structured", "extended"])
def test_no_chunk_is_larger_than_what_is_advertised(world, style):
    disk = make_disk(world.path("disk"), 80 * MIB, [(0, 65 * MIB)])
    with world.server(f"d={disk}") as server, Wire(server, limit=60) as raw:
        raw.negotiate_extended() if style == "extended" else raw.negotiate_structured()
        raw.go("d")
        chunks = raw.chunks(raw.request(wire.READ, 7 * MIB, 64 * MIB))
        assert [kind for kind, _ in chunks] == [wire.CHUNK_DATA] * 2 + [wire.CHUNK_HOLE]
        assert max(len(payload) for _, payload in chunks) == 32 * MIB + 8
        assert raw.read(7 * MIB, 64 * MIB) == content(disk, 7 * MIB, 64 * MIB)
        # In one chunk no more than that is to be had.
        assert raw.read(0, 32 * MIB, wire.DF) == content(disk, 0, 32 * MIB)
        assert raw.read(0, 32 * MIB + 1, wire.DF) == wire.EOVERFLOW
        assert raw.read(0, 512) == content(disk, 0, 512)


FLAGS = (wire.FUA, wire.NO_HOLE, wire.DF, wire.REQ_ONE, wire.FAST_ZERO, 1 << 6, 1 << 15)
FLAGS_TAKEN = {wire.READ: {wire.FUA, wire.DF}, wire.WRITE: {wire.FUA}, wire.FLUSH: {wire.FUA},
         wire.TRIM: {wire.FUA}, wire.CACHE: {wire.FUA},
         wire.WRITE_ZEROES: {wire.FUA, wire.NO_HOLE, wire.FAST_ZERO},
         wire.BLOCK_STATUS: {wire.FUA, wire.REQ_ONE}}


@pytest.mark.parametrize("style", ["simple", "structured", "extended"])
@pytest.mark.parametrize("access", ["rw", "ro"])
def test_each_command_takes_its_flags_and_no_others(world, disk, style, access):
    with world.server(f"d={disk}" + (",ro" if access == "ro" else "")) as server, \
            Wire(server) as raw:
        if style != "simple":
            raw.negotiate_extended() if style == "extended" else raw.negotiate_structured()
            assert len(raw.set_contexts("d", "base:allocation")[1]) == 1
        raw.go("d")
        for command, takes in FLAGS_TAKEN.items():
            for flag in (0, *FLAGS):
                length = 0 if command == wire.FLUSH else 512
                if command == wire.READ:
                    got = raw.read(0, length, flag)
                    error = 0 if isinstance(got, bytes) else got
                elif command == wire.BLOCK_STATUS:
                    got = raw.block_status(0, length, flag)
                    error = 0 if isinstance(got, dict) else got
                else:
                    # What is refused must still be taken off the stream: it looks like requests.
                    data = (header(wire.DISC) * 19)[:512] if command == wire.WRITE else b""
                    error = raw.do(command, 0, length, flag, data)
                allowed = flag in takes or flag == 0
                if style == "simple" and (flag == wire.DF or command == wire.BLOCK_STATUS):
                    allowed = False
                changes = command in (wire.WRITE, wire.TRIM, wire.WRITE_ZEROES)
                expected = ((wire.EPERM,) if access == "ro" and changes
                            else (0, wire.ENOTSUP) if flag == wire.FAST_ZERO else (0,))
                assert error in (expected if allowed else (wire.EINVAL,)), (command, flag)
        assert raw.read(512, 512) == content(disk, 512, 512)


def test_payload_over_the_limit_is_refused_and_the_server_goes_on(world):
    disk = make_disk(world.path("disk"), 256 * MIB, [(0, MIB)])
    with world.server(f"d={disk}") as server:
        with Wire(server, limit=60) as raw:
            raw.negotiate_structured()
            raw.go("d")
            assert raw.read(0, 128 * MIB) == wire.EOVERFLOW
            assert raw.write(4096, b"x" * (128 * MIB)) == wire.EINVAL
            assert raw.read(4096, 4096) == content(disk, 4096, 4096) != b"x" * 4096
        assert still_serves(server, disk)


# --- The life of a connection ---

# Of a handshake, or of half a request: a good client needs a hundredth, also on a busy machine.
DEADLINE = 2


def deadline_test_server(world, disk):
    return world.server(f"d={disk}", options=["--handshake-timeout", DEADLINE])


def test_silent_client_is_dropped_and_a_served_one_is_not(world, disk):
    with deadline_test_server(world, disk) as server:
        base = len(server.cpu_threads())
        with Wire(server) as idle:
            idle.go("d")
            begun = time.monotonic()
            with Wire(server, flags=None) as silent:
                assert silent.closed()
            with Wire(server) as after_flags:
                assert after_flags.closed()
            assert time.monotonic() - begun > 2 * DEADLINE - 0.5
            assert idle.read(0, 512) == content(disk, 0, 512)
        threads_are_back(server, base)


@pytest.mark.parametrize("start", [
    struct.pack(">QII", wire.OPTION_MAGIC, wire.GO, 100) + b"half of it",
    struct.pack(">QI", wire.OPTION_MAGIC, wire.GO),
    struct.pack(">QII", wire.OPTION_MAGIC, 99, 3 * MIB) + bytes(100)])
def test_half_an_option_is_dropped_at_the_deadline(world, disk, start):
    with deadline_test_server(world, disk) as server, Wire(server) as raw:
        raw.send(start)
        assert raw.closed()
        assert still_serves(server, disk)


def test_options_without_end_do_not_push_the_deadline(world, disk):
    with deadline_test_server(world, disk) as server, Wire(server) as raw:
        begun = time.monotonic()
        with pytest.raises((EOFError, ConnectionError)):
            while time.monotonic() - begun < 20:
                for byte in struct.pack(">QII", wire.OPTION_MAGIC, wire.STRUCTURED, 0):
                    raw.send(bytes([byte]))
                raw.option_reply()
        assert time.monotonic() - begun < 15


@pytest.mark.parametrize("start", [
    header(wire.READ, 0, 512)[:10],
    header(wire.WRITE, 0, 4096),
    header(wire.WRITE, 0, 4096) + bytes(100)])
def test_half_a_request_is_dropped_and_a_client_between_requests_is_not(world, disk, start):
    with world.server(f"d={disk}", options=["--request-timeout", DEADLINE]) as server, \
            Wire(server) as idle, Wire(server) as stuck:
        idle.go("d")
        assert idle.read(0, 512) == content(disk, 0, 512)
        stuck.go("d")
        assert stuck.read(0, 512) == content(disk, 0, 512)
        begun = time.monotonic()
        stuck.send(start)
        assert stuck.closed()
        assert DEADLINE - 0.1 < time.monotonic() - begun < 15
        server.wait_for_message("it stopped in the middle of a request")
        assert idle.read(0, 512) == content(disk, 0, 512)


def test_a_slow_request_is_served(world, disk):
    with world.server(f"d={disk}", options=["--request-timeout", DEADLINE]) as server, \
            Wire(server) as slow:
        slow.go("d")
        begun = time.monotonic()
        request = header(wire.WRITE, 0, 4096, cookie=7) + b"y" * 4096
        slow.send(request[:-60])
        for byte in request[-60:]:
            assert not select.select([slow.socket], [], [], 0.05)[0]
            slow.send(bytes([byte]))
        assert time.monotonic() - begun > 1.4 * DEADLINE
        assert slow.simple_reply() == (0, 7)


def test_reset_while_replies_are_sent_does_not_end_the_server(server, disk):
    base = len(server.cpu_threads())
    with Wire(server, tcp=True) as other:
        other.go("d")
        for round_number in range(30):
            raw = Wire(server, tcp=True)
            if round_number % 2:
                raw.negotiate_structured()
            raw.go("d")
            raw.send(b"".join(header(wire.READ, 0, MIB, cookie=n) for n in range(64)))
            raw.receive(1000 * round_number + 16)
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.socket.close()
            assert other.read(0, 512) == content(disk, 0, 512)
    threads_are_back(server, base)
    assert still_serves(server, disk)


def test_unix_client_that_closes_while_replies_are_sent_does_not_end_the_server(server, disk):
    base = len(server.cpu_threads())
    for round_number in range(30):
        with Wire(server) as raw:
            raw.go("d")
            raw.send(b"".join(header(wire.READ, 0, MIB, cookie=n) for n in range(64)))
            raw.receive(1000 * round_number + 16)
    threads_are_back(server, base)
    assert still_serves(server, disk)


@TRANSPORTS
def test_writes_followed_directly_by_disconnect_are_not_lost(server, disk, tcp):
    for round_number in range(100):
        data = random.Random(round_number).randbytes(20_000)
        # Four writes in one packet with the goodbye; the replies are not read before it.
        parts = [header(wire.WRITE, round_number * 1000 + at, 5000, cookie=at)
                 + data[at:at + 5000] for at in range(0, 20_000, 5000)]
        with Wire(server, tcp) as raw:
            raw.go("d")
            raw.send(b"".join(parts) + header(wire.DISC))
            answered = b""
            while part := raw.socket.recv(1000):
                answered += part
        assert content(disk, round_number * 1000, 20_000) == data
        assert len(answered) == 4 * 16


def test_writes_of_a_client_that_disconnects_and_leaves_at_once_are_not_lost(server, disk):
    for round_number in range(50):
        data = random.Random(round_number).randbytes(300_000)
        with Wire(server) as raw:
            raw.go("d")
            raw.send(header(wire.WRITE, round_number, len(data)) + data + header(wire.DISC))
        wait_for(lambda: content(disk, round_number, len(data)) == data, what="the write")


@pytest.mark.parametrize("sent", [0, 1, 10 * MIB, 32 * MIB - 1])
@TRANSPORTS
def test_client_killed_while_writing_frees_its_thread(world, sent, tcp):
    disk = make_disk(world.path("disk"), 64 * MIB, [(0, MIB)])
    with world.server(f"d={disk}") as server:
        base = len(server.cpu_threads())
        for _ in range(5):
            with Wire(server, tcp) as raw:
                raw.go("d")
                assert len(server.cpu_threads()) == base + 1
                raw.send(header(wire.WRITE, 0, 32 * MIB) + b"x" * sent)
            threads_are_back(server, base)
        wait_for(lambda: not server.connections(), what="the end of the connections")
        assert still_serves(server, disk)


def test_server_stops_with_clients_in_every_state(world, disk):
    with world.server(f"d={disk}") as server:
        silent, options, idle, half, lazy = (Wire(server, flags=None), Wire(server), Wire(server),
                                             Wire(server), Wire(server))
        options.send(struct.pack(">QI", wire.OPTION_MAGIC, wire.GO))
        for each in (idle, half, lazy):
            each.go("d")
        half.send(header(wire.WRITE, 0, MIB) + bytes(1000))
        lazy.send(b"".join(header(wire.READ, 0, MIB, cookie=n) for n in range(100)))
        assert server.stop() == 0
        for each in (silent, options, idle, half, lazy):
            each.socket.close()
