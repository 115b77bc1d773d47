# SPDX-License-Identifier: Apache-2.0
"""Digests of blocks, made where a disk is: what the server tells, and comparing without moving data."""

import json
import os
import signal
import struct
import time

import pytest

from harness import (CLIENT, GIB, KIB, MIB, Process, ask, content, make_disk, same_content,
                     wait_for)
from peers import Nbdkit
from wire import (BLOCK_STATUS, EINVAL, PAYLOAD, READ, REQ_ONE, WRITE, Wire, extended_header,
                  header)

BLOCK = 64 * KIB
SIZE = 8 * MIB + 1000
SEED = "nbd-mirror:digest:0123456789abcdef:"


@pytest.fixture
def disk(world):
    """Its first MiB and its last one is data, and so is a block between them that is all alike."""
    path = make_disk(world.path("disk"), SIZE, [(0, MIB), (SIZE - MIB, MIB)])
    with open(path, "r+b") as file:
        file.write(content(path, BLOCK, BLOCK))  # the first block is like the second
        file.seek(4 * MIB)
        file.write(b"x" * BLOCK)
    return path


def digests(server, offset=0, length=SIZE, parts=(0, 1, 2, 3), flags=0, seed=SEED, style="structured"):
    """(digest of its block, from, to) of each stretch: as far as the answer goes."""
    with Wire(server) as raw:
        raw.negotiate_extended() if style == "extended" else raw.negotiate_structured()
        _, contexts = raw.set_contexts("d", *(f"{seed}{part}" for part in parts))
        assert len(contexts) == len(parts)
        raw.go("d")
        told = raw.block_status(offset, length, flags)
        if isinstance(told, int):
            return told
        cuts = sorted({offset + sum(each for each, _ in told[identity][:count + 1])
                       for identity, _ in contexts for count in range(len(told[identity]))})
        result, begin = [], offset
        for end in cuts:
            values = []
            for identity, _ in contexts:
                at = offset
                for extent, status in told[identity]:
                    at += extent
                    if begin < at:
                        values.append(status)
                        break
            if len(values) == len(parts):
                result.append((tuple(values), begin, end))
            begin = end
        return result


def by_block(stretches):
    return {at // BLOCK: digest for digest, begin, end in stretches
            for at in range(begin - begin % BLOCK, end, BLOCK)}


@pytest.mark.parametrize("style", ["structured", "extended"])
@pytest.mark.parametrize("cache", ["writeback", "direct"])
def test_blocks_that_are_alike_have_one_digest_and_others_have_others(world, disk, style, cache):
    with world.server(f"d={disk},cache={cache}") as server:
        told = by_block(digests(server, style=style))
        assert sorted(told) == list(range(SIZE // BLOCK + 1))
        blocks = {number: content(disk, number * BLOCK, BLOCK) for number in told}
        for number, data in blocks.items():
            same = {other for other in blocks if blocks[other] == data}
            assert {other for other in told if told[other] == told[number]} == same
        assert told[0] == told[1] != told[2]
        other_seed = by_block(digests(server, seed="nbd-mirror:digest:0000000000000001:"))
        assert all(told[number] != other_seed[number] for number in told)
        # Each part is told of the same block, whatever others are asked for.
        assert by_block(digests(server, parts=(2,)))[2] == (told[2][2],)


def test_a_part_of_a_block_has_its_digest(world, disk):
    with world.server(f"d={disk}") as server:
        told = by_block(digests(server))
        assert digests(server, 2 * BLOCK + 5, 7) == [(told[2], 2 * BLOCK + 5, 2 * BLOCK + 12)]
        assert digests(server, 3 * BLOCK, 4 * BLOCK, flags=REQ_ONE)[0][0] == told[3]
        assert digests(server, SIZE - 1, 1) == [(told[SIZE // BLOCK], SIZE - 1, SIZE)]
        assert digests(server, SIZE, 1) == EINVAL


def test_they_are_those_of_what_is_written_by_now(world, disk):
    with world.server(f"d={disk}") as server, Wire(server) as writer:
        writer.go("d")
        before = by_block(digests(server))
        assert writer.write(4 * MIB + 100, b"y") == 0
        after = by_block(digests(server))
        assert {number for number in after if after[number] != before[number]} == {4 * MIB // BLOCK}


@pytest.fixture
def both(world):
    """Two servers, each with the same disk."""
    pieces = [(0, 20 * MIB), (100 * MIB, 3 * MIB + 4 * KIB)]
    make_disk(world.path("source"), GIB + 512, pieces)
    make_disk(world.path("target"), GIB + 512, pieces)
    with world.server(f"d={world.path('source')}", name="source-server") as a, \
            world.server(f"d={world.path('target')}", name="target-server") as b:
        yield a, b


def change(world, offset, data):
    with open(world.path("target"), "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_equal_disks_are_verified_without_moving_any_data(world, both):
    a, b = both
    result = world.client("verify", a.uri("d"), b.uri("d"))
    assert result.returncode == 0, result.stderr
    assert a.export("d")["read_bytes"] == b.export("d")["read_bytes"] == 0
    result = world.client("verify", world.path("source"), b.uri("d", tcp=True))
    assert result.returncode == 0, result.stderr
    assert b.export("d")["read_bytes"] == 0


def test_of_disks_that_differ_only_those_blocks_are_read(world, both):
    a, b = both
    change(world, 7 * MIB + 5, b"?")
    change(world, GIB + 511, b"?")  # the tail, where the other one has a hole
    result = world.client("verify", a.source("d"), b.uri("d"))
    assert result.returncode == 3
    assert f"bytes {7 * MIB}-{7 * MIB + 4095}" in result.stderr + result.stdout
    assert f"bytes {GIB}-{GIB + 511}" in result.stderr + result.stdout
    assert b.export("d")["read_bytes"] <= 2 * BLOCK


def test_copy_delta_reads_and_sends_only_what_differs(world, both):
    a, b = both
    change(world, 7 * MIB, b"?" * 4096)
    change(world, 500 * MIB, b"?" * BLOCK)  # old data under a hole
    result = world.client("copy", "--delta", "--progress", "json", a.uri("d"), b.uri("d"))
    assert result.returncode == 0, result.stderr
    assert same_content(world.path("source"), world.path("target"))
    last = json.loads(result.stdout.splitlines()[-1])["disks"][0]
    assert last["sent_bytes"] == 4096 and last["moved_bytes"] == last["total_bytes"] == GIB + 512
    assert a.export("d")["read_bytes"] <= 2 * BLOCK


def mirror_and_lose_the_tracker(world, both):
    source, target = both
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    assert source.ask("DELETE", "/v1/exports/d/trackers/mirror.job")[0] in (200, 204)


def test_a_mirror_whose_tracker_is_gone_sends_only_what_differs(world, both):
    _, b = both
    mirror_and_lose_the_tracker(world, both)
    change(world, 101 * MIB, b"?" * 4096)
    read = b.export("d")["read_bytes"]
    with world.mirror(None, None, "--resume") as mirror:
        mirror.wait_for_phase("ready")
        assert mirror.status()["disks"][0]["sent_bytes"] == 4096
        assert b.export("d")["read_bytes"] - read <= 2 * BLOCK
        assert mirror.cutover().returncode == 0
        assert mirror.wait() == 0
    assert same_content(world.path("source"), world.path("target"))


def test_what_digests_show_to_be_alike_is_shown_as_moved(world, both):
    mirror_and_lose_the_tracker(world, both)
    change(world, 16 * MIB, bytes(4 * MIB))
    with world.mirror(None, None, "--resume", "--bwlimit", "1M") as mirror:
        wait_for(lambda: (mirror.status() or {"disks": [{}]})["disks"][0].get("sent_bytes"))
        [disk] = ask(mirror.control, "GET", "/v1/job/map")[1]["disks"]
        assert disk["moved"][:15] == "9" * 15 and "9" in disk["to_do"]
        mirror.kill()


def test_a_mirror_that_verifies_reads_nothing_back_over_the_network(world, both):
    a, b = both
    os.truncate(world.path("target"), 0)
    os.truncate(world.path("target"), GIB + 512)
    with world.mirror(a.source("d"), b.uri("d"), "--verify") as mirror:
        mirror.wait_for_phase("ready")
        assert b.export("d")["read_bytes"] == 0
        assert mirror.cutover().returncode == 0
        assert mirror.wait() == 0
    assert same_content(world.path("source"), world.path("target"))


def test_a_mirror_that_verifies_finds_what_has_changed_at_its_target(world, both):
    a, b = both
    with world.mirror(a.source("d"), b.uri("d"), "--verify", "--bwlimit", "8M", "--cutover", "auto",
                      expect=(1,)) as mirror:
        wait_for(lambda: (mirror.status() or {"disks": [{"sent_bytes": 0}]})["disks"][0]["sent_bytes"]
                 > 4 * MIB)
        change(world, MIB + 17, b"?")  # behind its back, and behind where it is
        assert mirror.wait() == 1
        mirror.wait_for_message(f"bytes {MIB}-{MIB + 4095}")
    assert a.export("d")["state"] == "serving"


def test_a_paused_job_compares_nothing(world, both):
    a, b = both
    with world.mirror(a.source("d"), b.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        mirror.kill()
    a.ask("DELETE", "/v1/exports/d/trackers/mirror.job")
    with world.mirror(None, None, "--resume", "--window", "00:00-00:01", expect=(4,)) as mirror:
        mirror.wait_for_phase("copying", "catching_up")
        if mirror.status()["paused"] is None:
            pytest.skip("it is midnight")
        moved = mirror.status()["disks"][0]["moved_bytes"]
        with Wire(a) as client:  # some time
            client.go("d")
            for _ in range(200):
                client.read(0, 512)
        assert mirror.status()["disks"][0]["moved_bytes"] == moved == 0
        assert world.client("cancel", "job").returncode == 0


def test_who_asks_for_many_digests_holds_up_nothing_else_of_its_connection(world, both):
    a, _ = both
    with Wire(a) as asker:
        asker.negotiate_structured()
        asker.set_contexts("d", *(f"{SEED}{part}" for part in range(4)))
        asker.go("d")
        count, begun = 100, time.monotonic()
        asker.send(b"".join(header(BLOCK_STATUS, 0, 16 * MIB, cookie=n) for n in range(count)))
        asker.chunks(0)
        first = time.monotonic()
        for number in range(1, count):
            asker.chunks(number)
        # Answered one by one, not all together behind the last.
        assert first - begun < (time.monotonic() - begun) / 2


def test_what_comes_behind_a_question_with_a_payload_stays_in_step(world, disk):
    data = os.urandom(300_000)
    with world.server(f"d={disk}") as server, Wire(server) as raw:
        raw.negotiate_extended()
        _, contexts = raw.set_contexts("d", *(f"{SEED}{part}" for part in range(4)))
        raw.go("d")
        payload = struct.pack(">Q4I", MIB, *(identity for identity, _ in contexts))
        raw.offsets = {1: 0, 2: 4096, 3: 4096}
        raw.send(extended_header(BLOCK_STATUS, 0, len(payload), PAYLOAD, 1) + payload
                 + extended_header(WRITE, 4096, len(data), PAYLOAD, 2) + data)
        assert len(raw.chunks(1)) == 4
        assert raw.any_reply() == (0, 2)
        raw.send(extended_header(READ, 4096, len(data), 0, 3))
        assert raw.read_reply(3, 4096, len(data)) == data
    assert content(disk, 4096, len(data)) == data


def test_an_interrupt_is_heard_in_the_middle_of_a_hole(world):
    source = make_disk(world.path("sparse"), 4 * GIB)
    with open(world.path("full"), "wb") as full:
        full.truncate(4 * GIB)
        for part in range(0, 256 * MIB, MIB):
            full.seek(part * 16)
            full.write(b"x" * MIB)
    with Process([CLIENT, "verify", source, world.path("full"), "--progress", "json"], world.env,
                 world.quick("verify.log"), expect=(3, 4)) as verify:
        verify.process.stdout.readline()  # it has begun
        verify.process.send_signal(signal.SIGINT)
        verify.wait(30)


def test_digests_take_no_place_from_what_comes_after_them(world, both):
    a, _ = both
    third = make_disk(world.path("third"), GIB + 512, [(0, 8 * MIB)], seed=2)
    # Four workers, those who ask for the extents, and as many as there is room for.
    for limit in (6, 7, 8, 9):
        with world.server(f"d={third}", options=["--max-connections", str(limit)]) as server:
            assert world.client("verify", a.source("d"), server.uri("d")).returncode == 3
    with world.server(f"d={third}", options=["--max-connections", "7"]) as server:
        result = world.client("copy", "--delta", "--verify", a.source("d"), server.uri("d"))
        assert result.returncode == 0, result.stderr


def test_a_server_that_makes_no_digests_is_read(world, disk):
    with Nbdkit(world, "file", disk) as server:
        result = world.client("verify", disk, server.uri)
        assert result.returncode == 0, result.stderr


def test_where_there_is_no_room_for_more_connections_both_are_read(world, disk):
    with world.server(f"d={disk}", options=["--max-connections", "5"]) as server:
        # Four workers, and whoever asks for the extents.
        result = world.client("verify", disk, server.uri("d"))
        assert result.returncode == 0, result.stderr
        assert server.export("d")["read_bytes"] > 0
