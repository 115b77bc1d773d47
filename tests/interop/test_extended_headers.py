# SPDX-License-Identifier: Apache-2.0
"""NBD_OPT_EXTENDED_HEADERS, against raw bytes: no client of Debian 12 speaks it. What it has in
common with structured replies is tested in test_protocol.py, in both forms."""

import struct

import pytest

import wire
from harness import GIB, KIB, MIB, make_disk
from wire import Wire, context_data, extended_header, go_data, header, string

HUGE = 6 * GIB + 512


@pytest.fixture
def disk(world):
    return make_disk(world.path("disk"), HUGE, [(0, MIB), (5 * GIB, MIB)])


@pytest.fixture
def raw(raw):
    raw.negotiate_extended()
    return raw


@pytest.fixture
def served(plain):
    return plain


def transmission_flags(raw, code=wire.GO):
    kind, replies = raw.ask(code, go_data("d"))
    assert kind == wire.ACK
    return struct.unpack(">HQH", replies[0][1])[2]


def test_with_data_the_option_is_invalid(server):
    with Wire(server) as raw:
        assert raw.ask(wire.EXTENDED, b"x")[0] == wire.ERR_INVALID
        assert raw.in_step("d")


def test_it_may_come_after_structured_replies_and_again(server):
    with Wire(server) as raw:
        raw.negotiate_structured()
        raw.negotiate_extended()
        raw.negotiate_extended()
        raw.go("d")
        assert len(raw.read(0, 512)) == 512


def test_structured_replies_cannot_be_gone_back_to(raw):
    assert raw.ask(wire.STRUCTURED)[0] == wire.ERR_EXTENDED_REQUIRED
    raw.go("d")
    assert len(raw.read(0, 512)) == 512


def test_export_name_ends_the_connection(raw):
    raw.option(wire.EXPORT_NAME, b"d")
    assert raw.closed()


@pytest.mark.parametrize("contexts, expected", [((), False), (("base:allocation",), True)])
def test_status_payload_is_offered_where_there_are_contexts(raw, contexts, expected):
    if contexts:
        raw.set_contexts("d", *contexts)
    assert bool(transmission_flags(raw, wire.INFO) & 1 << 12) == expected
    flags = transmission_flags(raw)
    assert bool(flags & 1 << 12) == expected
    assert flags & 1 << 7  # DF


def test_without_it_status_payload_is_not_offered(server):
    with Wire(server) as raw:
        raw.negotiate_structured()
        raw.set_contexts("d", "base:allocation")
        assert not transmission_flags(raw) & 1 << 12


@pytest.mark.parametrize("command", [wire.TRIM, wire.WRITE_ZEROES])
def test_one_request_covers_more_than_32_bits(served, disk, command):
    assert served.do(command, 512, HUGE - 512) == 0
    assert served.read(5 * GIB, 4 * KIB) == bytes(4 * KIB)
    # The first sector was outside, the one behind it in.
    assert disk.stat().st_blocks <= 16
    with open(disk, "rb") as file:
        assert file.read(512) != bytes(512) and file.read(4096) == bytes(4096)


def test_block_status_covers_more_than_32_bits(raw):
    _, [(identity, _)] = raw.set_contexts("d", "base:allocation")
    raw.go("d")
    extents = raw.block_status(0, HUGE)[identity]
    assert extents == [(MIB, 0), (5 * GIB - MIB, 3), (MIB, 0), (HUGE - 5 * GIB - MIB, 3)]
    assert raw.block_status(MIB, 5 * GIB - MIB, wire.REQ_ONE)[identity] == [(5 * GIB - MIB, 3)]
    assert raw.block_status(0, HUGE + 1) == wire.EINVAL


def test_cache_of_more_than_32_bits(served):
    assert served.do(wire.CACHE, 0, HUGE) == 0


@pytest.mark.parametrize("length, error", [(64 * MIB + 1, wire.EOVERFLOW), (5 * GIB, wire.EOVERFLOW),
                                           ((1 << 64) - 1, wire.EINVAL)])
def test_a_read_larger_than_can_be_sent_is_refused(served, length, error):
    assert served.do(wire.READ, 0, length) == error
    assert len(served.read(0, 512)) == 512


def test_write_without_the_payload_flag_is_einval_and_has_no_payload(served, disk):
    before = disk.stat().st_mtime_ns
    served.send(extended_header(wire.WRITE, 0, 512, 0, 7))
    served.offsets[7] = 0
    assert served.any_reply() == (wire.EINVAL, 7)
    assert len(served.read(0, 512)) == 512
    assert disk.stat().st_mtime_ns == before


@pytest.mark.parametrize("command", [wire.READ, wire.FLUSH, wire.TRIM, wire.WRITE_ZEROES,
                                     wire.CACHE, 42])
def test_a_payload_that_no_command_knows_is_taken_off_the_stream(served, command):
    payload = extended_header(wire.DISC) * 20
    assert served.do(command, 0, len(payload), data=payload) == wire.EINVAL
    assert len(served.read(0, 512)) == 512


def test_a_payload_beyond_the_limit_is_taken_off_the_stream(served):
    served.send(extended_header(wire.WRITE, 0, 65 * MIB, wire.PAYLOAD, 9))
    served.offsets[9] = 0
    for _ in range(65):
        served.send(bytes(MIB))
    assert served.any_reply() == (wire.EINVAL, 9)
    assert len(served.read(0, 512)) == 512


def test_a_payload_of_more_than_32_bits_ends_the_connection(served):
    served.send(extended_header(wire.WRITE, 0, 1 << 32, wire.PAYLOAD, 9))
    assert served.closed()


def test_a_compact_request_ends_the_connection(served):
    served.send(header(wire.READ, 0, 512) + bytes(16))
    assert served.closed()


def test_an_extended_request_without_negotiation_ends_the_connection(server):
    with Wire(server) as raw:
        raw.go("d")
        raw.send(extended_header(wire.READ, 0, 512))
        assert raw.closed()


@pytest.fixture
def two_contexts(server, raw):
    assert server.ask("PUT", "/v1/exports/d/trackers/t", {})[0] == 201
    _, contexts = raw.set_contexts("d", "base:allocation", "nbd-mirror:dirty-bitmap:t")
    raw.go("d")
    return [identity for identity, _ in contexts]


def test_status_of_some_contexts_only(raw, two_contexts):
    allocation, dirty = two_contexts
    assert set(raw.block_status(0, HUGE)) == {allocation, dirty}
    assert raw.block_status_of([allocation], 0, MIB) == {allocation: [(MIB, 0)]}
    assert raw.block_status_of([dirty], 0, HUGE) == {dirty: [(HUGE, 0)]}
    assert set(raw.block_status_of([dirty, allocation], 0, HUGE)) == {allocation, dirty}


@pytest.mark.parametrize("contexts", [[], [1, 1], [1, 99], [99], list(range(1, 70))])
def test_unknown_contexts_and_repeated_ones_are_einval(raw, two_contexts, contexts):
    assert raw.block_status_of(contexts, 0, MIB) == wire.EINVAL
    assert len(raw.read(0, 512)) == 512


def test_status_payload_that_is_cut_is_einval(raw, two_contexts):
    for payload in (b"x", b"x" * 7, b"x" * 13):
        assert raw.block_status_reply(
            raw.request(wire.BLOCK_STATUS, 0, len(payload), data=payload)) == wire.EINVAL
    assert len(raw.read(0, 512)) == 512


def test_status_payload_past_the_end_is_einval(raw, two_contexts):
    assert raw.block_status_of([1], MIB, HUGE) == wire.EINVAL
    assert raw.block_status_of([1], 0, (1 << 64) - 1) == wire.EINVAL
    assert raw.block_status_of([1], 0, 0) == wire.EINVAL


def test_contexts_need_no_structured_replies(raw):
    assert raw.set_contexts("d", "base:allocation")[0] == wire.ACK
    assert raw.ask(wire.LIST_CONTEXT, context_data("d"))[0] == wire.ACK
    assert raw.ask(wire.LIST_CONTEXT, string("none") + bytes(4))[0] == wire.ERR_UNKNOWN
