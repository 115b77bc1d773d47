# SPDX-License-Identifier: Apache-2.0
"""`nbd-mirror copy` and `verify`."""

import json
import os
import signal

import pytest

from harness import CLIENT, MIB, Process, make_disk, same_content, wait_for

SIZES = [1, 511, 512, 4095, 4097, 65535, 65537, MIB + 1, 3 * MIB + 777, 8 * MIB]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("cache", ["writeback", "direct"])
def test_every_size_is_copied_exactly(world, size, tcp, cache):
    source = make_disk(world.path("source"), size, [(0, size)])
    target = make_disk(world.path("target"), size)
    with world.server(f"d={target},cache={cache}") as server:
        result = world.client("copy", source, server.uri("d", tcp), "--verify")
        assert result.returncode == 0, result.stderr
    assert same_content(source, target)
    assert os.path.getsize(target) == size


@pytest.mark.parametrize("size", SIZES)
def test_a_server_is_copied_to_a_file(world, size):
    source = make_disk(world.path("source"), size, [(0, size)])
    with world.server(f"d={source},ro") as server:
        result = world.client("copy", server.uri("d"), world.path("target"), "--create")
        assert result.returncode == 0, result.stderr
    assert same_content(source, world.path("target"))


def test_an_export_is_copied_and_compared_by_its_name(world):
    source = make_disk(world.path("source"), MIB, [(1000, 100_000)])
    with world.server(f"d={source}") as server:
        assert world.client("copy", server.source("d"), "target", "--create").returncode == 0
        assert same_content(source, world.path("target"))
        result = world.client("verify", server.source("d"), "target", "--progress", "none")
        assert (result.returncode, result.stdout) == (0, "equal\n")
        result = world.client("copy", server.source("other"), "target")
        assert result.returncode == 1 and "there is no export 'other'" in result.stderr


def test_a_file_that_became_shorter_is_an_error_and_not_zeroes(world):
    disk = make_disk(world.path("disk"), 4 * MIB, [(0, 4 * MIB)])
    with world.server(f"d={disk}") as server:
        os.truncate(disk, 2 * MIB)
        result = world.client("copy", server.uri("d"), "target", "--create", "--progress", "none")
        assert result.returncode == 1
        assert "cannot read" in result.stderr and "is not complete" in result.stderr


def test_a_larger_target_keeps_its_tail(world):
    source = make_disk(world.path("source"), 2 * MIB + 100, [(0, 2 * MIB + 100)])
    target = make_disk(world.path("target"), 4 * MIB, [(0, 4 * MIB)], seed=2)
    before = target.read_bytes()
    with world.server(f"d={target}") as server:
        result = world.client("copy", source, server.uri("d"))
        assert result.returncode == 0 and "larger" in result.stderr
    assert same_content(source, target, 2 * MIB + 100)
    assert target.read_bytes()[2 * MIB + 100:] == before[2 * MIB + 100:]


def test_json_progress_is_one_object_a_line_and_moved_never_falls(world):
    source = make_disk(world.path("source"), 32 * MIB, [(0, 16 * MIB)])
    result = world.client("copy", source, world.path("target"), "--create", "--progress", "json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["phase"] for each in lines][-1] == "done"
    moved = [each["disks"][0]["moved_bytes"] for each in lines]
    assert moved == sorted(moved)
    assert all(m <= each["disks"][0]["total_bytes"] for m, each in zip(moved, lines))
    assert moved[-1] == 32 * MIB


def test_verify_names_the_differing_ranges(world):
    source = make_disk(world.path("source"), 8 * MIB, [(0, 8 * MIB)])
    target = world.path("target")
    data = bytearray(source.read_bytes())
    for offset in (5000, 3 * MIB, 8 * MIB - 1):
        data[offset] ^= 1
    target.write_bytes(data)
    result = world.client("verify", source, target, "--progress", "none")
    assert result.returncode == 3
    assert result.stdout.splitlines() == ["bytes 4096-8191 (4.0 KiB) differ",
                                          "bytes 3145728-3149823 (4.0 KiB) differ",
                                          "bytes 8384512-8388607 (4.0 KiB) differ"]
    target.write_bytes(source.read_bytes())
    result = world.client("verify", source, target, "--progress", "none")
    assert result.returncode == 0 and result.stdout == "equal\n"


def test_data_where_the_other_side_has_a_hole_differs(world):
    source = make_disk(world.path("source"), 8 * MIB)
    target = make_disk(world.path("target"), 8 * MIB, [(MIB, 10)])
    assert world.client("verify", source, target).returncode == 3
    assert world.client("verify", target, source).returncode == 3


def test_an_interrupt_cancels_with_status_4(world):
    source = make_disk(world.path("source"), 64 * MIB, [(0, 64 * MIB)])
    target = make_disk(world.path("target"), 64 * MIB)
    with world.server(f"d={target}") as server:
        # Its writes are kept waiting, so that it cannot be done before.
        server.hold()
        with Process([CLIENT, "copy", source, server.uri("d"), "--progress", "json"], world.env,
                     world.quick("copy.log"), expect=(4,)) as copy:
            wait_for(lambda: server.in_flight() >= 4)
            # A stopped server answers nothing more; nobody waits for that.
            os.kill(server.pid, signal.SIGSTOP)
            try:
                os.kill(copy.pid, signal.SIGINT)
                assert copy.wait(30) == 4
            finally:
                os.kill(server.pid, signal.SIGCONT)


def test_a_lost_target_is_one_clear_line_and_status_1(world):
    source = make_disk(world.path("source"), 256 * MIB, [(0, 256 * MIB)])
    target = make_disk(world.path("target"), 256 * MIB)
    with world.server(f"d={target}", expect=None) as server:
        # Eight seconds' copy: it must not be done before the target is gone.
        with Process([CLIENT, "copy", source, server.uri("d"), "--progress", "none", "--bwlimit",
                      "32M"], world.env, world.quick("copy.log"), expect=(1,)) as copy:
            wait_for(lambda: server.export("d")["written_bytes"] > MIB)
            server.kill()
            copy.wait()
        lines = copy.messages().splitlines()
        assert len(lines) == 1 and lines[0].startswith("nbd-mirror: cannot ")
