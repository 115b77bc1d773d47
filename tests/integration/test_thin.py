# SPDX-License-Identifier: Apache-2.0
"""A thin disk arrives thin, on files and on block devices; what was at the target before is gone;
and what is known to be zero is left alone."""

import contextlib
import os
import random
import re
import subprocess
import time

import pytest

from harness import (CLIENT, GIB, KIB, MIB, Process, Writer, allocated_bytes, content, loop_device,
                     make_disk, same_content, wait_for)
from nbd_client import connect


@pytest.fixture
def pair(world):
    with world.pair(96 * MIB + 5 * KIB + 7, [(0, 30 * MIB), (50 * MIB, 20 * MIB)]) as both:
        yield both


@pytest.fixture
def small(world):
    """A file system with room for 4 MiB."""
    directory = world.path("small")
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", directory],
                      capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def test_holes_arrive_as_holes(world):
    source = make_disk(world.path("source"), 64 * MIB, [(3 * MIB, MIB), (40 * MIB + 5, 70 * KIB)])
    target = make_disk(world.path("target"), 64 * MIB)
    with world.server(f"d={target}") as server:
        assert world.client("copy", source, server.uri("d")).returncode == 0
    assert same_content(source, target)
    assert allocated_bytes(target) <= allocated_bytes(source) * 1.01


def test_zeroes_in_allocated_blocks_are_not_stored(world):
    source = world.path("source")
    source.write_bytes(b"\0" * (4 * MIB) + b"x" * MIB + b"\0" * (3 * MIB))
    assert world.client("copy", source, world.path("target"), "--create").returncode == 0
    assert same_content(source, world.path("target"))
    assert allocated_bytes(world.path("target")) <= MIB + 64 * KIB


def test_allocated_writes_zeroes_as_data(world):
    source = make_disk(world.path("source"), 8 * MIB, [(0, KIB)])
    result = world.client("copy", source, world.path("target"), "--create", "--allocated")
    assert result.returncode == 0, result.stderr
    assert same_content(source, world.path("target"))
    assert allocated_bytes(world.path("target")) >= 8 * MIB


def test_old_data_under_a_source_hole_is_cleaned(world):
    source = make_disk(world.path("source"), 16 * MIB + 999, [(5 * MIB, 3 * MIB)])
    target = make_disk(world.path("target"), 16 * MIB + 999, [(0, 16 * MIB + 999)], seed=2)
    with world.server(f"d={target}") as server:
        assert world.client("copy", source, server.uri("d")).returncode == 0
    assert same_content(source, target)
    assert allocated_bytes(target) <= 3 * MIB + 128 * KIB


def test_time_grows_with_data_and_not_with_size(world):
    pieces = [(i * 4 * GIB, 4 * MIB) for i in range(20)]

    sources = {size: make_disk(world.path(f"source{size}"), size, pieces)
               for size in (100 * GIB, 500 * GIB)}

    def seconds(size):
        target = world.path("target")
        target.unlink(missing_ok=True)
        make_disk(target, size)
        with world.server(f"d={target}") as server:
            begin = time.monotonic()
            assert world.client("copy", sources[size], server.uri("d")).returncode == 0
            took = time.monotonic() - begin
        assert allocated_bytes(target) <= 1.01 * allocated_bytes(sources[size])
        return took

    # The bound is 1.2 for 500 GiB; on a busy machine a test can only say "not five times".
    # They take turns, until each has had a quiet moment: what is slow by itself never has.
    small, large = [], []
    for _ in range(10):
        small.append(seconds(100 * GIB))
        large.append(seconds(500 * GIB))
        if len(small) >= 3 and min(large) < 2 * min(small) + 0.2:
            break
    assert min(large) < 2 * min(small) + 0.2


def test_a_target_that_will_be_full_is_said_before_and_when_it_is(world, small):
    source = make_disk(world.path("source"), 16 * MIB, [(0, 16 * MIB)])
    with world.server(f"d={small}/disk,size=16M") as server:
        result = world.client("copy", source, server.uri("d"), "--progress", "none")
    assert result.returncode == 1
    foreseen, met = result.stderr.splitlines()
    assert "room for 4.0 MiB" in foreseen and "up to 16.0 MiB is data" in foreseen
    assert "No space left on device" in met
    (small / "disk").unlink()
    result = world.client("copy", source, small / "other", "--create", "--progress", "none")
    foreseen, met = result.stderr.splitlines()
    assert "room for 4.0 MiB" in foreseen and "No space left on device" in met
    # What is a hole needs no room.
    (small / "other").unlink()
    sparse = make_disk(world.path("sparse"), 16 * MIB, [(0, 2 * MIB)])
    result = world.client("copy", sparse, small / "third", "--create", "--progress", "none")
    assert (result.returncode, result.stderr) == (0, "")


def test_old_data_at_the_target_is_gone_and_new_holes_arrive(world, pair):
    source, target = pair
    with open(world.path("target"), "r+b") as disk:
        disk.write(random.Random(3).randbytes(90 * MIB))
    handle = connect(source)
    with world.mirror(source.source("d"), target.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        handle.trim(8 * MIB, 51 * MIB)
        handle.zero(100_000, 3 * MIB + 1)
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert same_content(world.path("source"), world.path("target"))


@pytest.mark.parametrize("command", ["copy", "mirror"])
def test_that_a_target_will_be_full_is_said_before_the_first_byte(world, small, command):
    source_disk = make_disk(world.path("source"), 16 * MIB, [(0, 16 * MIB)])
    with world.server(f"d={source_disk}") as source, \
            world.server(f"d={small}/disk,size=16M") as target:
        hold = target.hold()
        with Process([CLIENT, command, source.source("d"), target.uri("d"), "--progress", "none"],
                     world.env, world.quick("client.log"), expect=(1,)) as client:
            client.wait_for_message("room for 4.0 MiB")
            assert target.export("d")["written_bytes"] == 0
            target.release(hold)
            assert client.wait() == 1


def zeroings(server):
    """Requests for zeroes that an export has received."""
    pattern = r'^nbd_mirror_requests_total\{export="d",command="write_zeroes"\} (\d+)$'
    return int(re.search(pattern, server.ask("GET", "/metrics")[1], re.MULTILINE)[1])


def half_zeroes(path, size=16 * MIB):
    """Data, allocated zeroes and holes, of which all but the data is zero."""
    make_disk(path, size, [(MIB, MIB), (9 * MIB + 5, 70 * KIB)])
    with open(path, "r+b") as disk:
        disk.seek(4 * MIB)
        disk.write(bytes(3 * MIB))
    assert allocated_bytes(path) >= 4 * MIB
    return path


def overwrite(path, size, seed=2):
    """Old data, in a file or on a device that stays what it is."""
    with open(path, "r+b") as disk:
        disk.write(random.Random(seed).randbytes(size))
        os.fsync(disk.fileno())


@pytest.mark.parametrize("command", ["copy", "mirror"])
@pytest.mark.parametrize("old_bytes", [0, 16 * MIB], ids=["a hole throughout", "old data"])
def test_only_a_target_that_is_not_known_to_be_zero_is_asked_for_zeroes(world, command, old_bytes):
    source_disk = half_zeroes(world.path("source"))
    target_disk = make_disk(world.path("target"), 16 * MIB, [(0, old_bytes)])
    with world.server(f"d={source_disk}") as source, world.server(f"d={target_disk}") as target:
        options = ["--cutover", "auto"] if command == "mirror" else []
        result = world.client(command, source.source("d"), target.uri("d"), *options)
        assert result.returncode == 0, result.stderr
        assert (zeroings(target) > 0) == (old_bytes > 0)
    assert same_content(source_disk, target_disk)
    assert allocated_bytes(target_disk) <= MIB + 256 * KIB


@pytest.mark.parametrize("old_bytes", [None, 0, 16 * MIB], ids=["made", "hole", "old data"])
def test_a_file_is_zeroed_where_there_is_old_data_and_nowhere_else(world, old_bytes):
    source, target = half_zeroes(world.path("source")), world.path("target")
    if old_bytes is not None:
        make_disk(target, 16 * MIB, [(0, old_bytes)])
    result = world.client("copy", source, target, "--create", "--progress", "json")
    assert result.returncode == 0, result.stderr
    zeroed = int(re.findall(r'"zeroed_bytes":(\d+)', result.stdout)[-1])
    assert zeroed > 14 * MIB if old_bytes else zeroed == 0
    assert same_content(source, target)
    assert allocated_bytes(target) <= MIB + 256 * KIB


def test_a_target_that_is_trusted_to_be_zero_keeps_what_it_had_under_the_holes(world):
    source = make_disk(world.path("source"), 8 * MIB, [(2 * MIB, MIB)])
    target = make_disk(world.path("target"), 8 * MIB, [(0, 8 * MIB)], seed=2)
    expected = bytearray(target.read_bytes())
    expected[2 * MIB:3 * MIB] = content(source, 2 * MIB, MIB)
    with world.server(f"d={target}") as server:
        result = world.client("copy", source, server.uri("d"), "--target-is-zero")
        assert result.returncode == 0, result.stderr
        assert zeroings(server) == 0
    assert target.read_bytes() == expected


def preallocated(path, size, old_bytes=0):
    """A file that its owner has given all its blocks, with old data in the first of them."""
    with open(path, "wb") as disk:
        try:
            os.posix_fallocate(disk.fileno(), 0, size)
        except OSError as error:
            pytest.skip(f"nothing can be preallocated here: {error}")
    if old_bytes:
        overwrite(path, old_bytes)
    assert allocated_bytes(path) >= size
    return path


@contextlib.contextmanager
def served_or_not(world, disk, served):
    """What `nbd-mirror` is told as the target."""
    if not served:
        yield disk
        return
    with world.server(f"d={disk}") as server:
        yield server.uri("d")


SERVED_OR_NOT = pytest.mark.parametrize("served", [False, True], ids=["a file", "an export"])


@SERVED_OR_NOT
@pytest.mark.parametrize("options, all_of_it", [(["--allocated"], True), ([], False)],
                         ids=["allocated", "thin"])
def test_a_preallocated_target_stays_so_where_that_is_wanted_and_else_gets_holes_for_its_old_data(
        world, served, options, all_of_it):
    source = half_zeroes(world.path("source"))
    disk = preallocated(world.path("target"), 16 * MIB, old_bytes=16 * MIB)
    with served_or_not(world, disk, served) as target:
        result = world.client("copy", source, target, *options)
        assert result.returncode == 0, result.stderr
    assert same_content(source, disk)
    if all_of_it:
        assert allocated_bytes(disk) >= 16 * MIB
    else:
        assert allocated_bytes(disk) <= MIB + 256 * KIB


def test_blocks_of_an_export_that_were_given_and_never_written_are_known_to_be_zero(world):
    source = half_zeroes(world.path("source"))
    # Half of it was in use: that is cleaned, and the other half stays as its owner made it.
    disk = preallocated(world.path("target"), 16 * MIB, old_bytes=8 * MIB)
    with world.server(f"d={disk}") as server:
        result = world.client("copy", source, server.uri("d"))
        assert result.returncode == 0, result.stderr
    assert same_content(source, disk)
    assert 9 * MIB <= allocated_bytes(disk) <= 9 * MIB + 256 * KIB


def test_a_mirror_leaves_no_holes_where_none_are_wanted_also_of_what_is_trimmed_later(world):
    source_disk = half_zeroes(world.path("source"))
    disk = preallocated(world.path("target"), 16 * MIB, old_bytes=8 * MIB)
    with world.server(f"d={source_disk}") as source, world.server(f"d={disk}") as target, \
            world.mirror(source.source("d"), target.uri("d"), "--allocated") as mirror:
        mirror.wait_for_phase("ready")
        handle = connect(source)
        handle.trim(MIB, MIB)
        handle.zero(MIB, 12 * MIB)
        assert mirror.cutover().returncode == 0
        mirror.wait()
        assert zeroings(target) == 0
    assert allocated_bytes(source_disk) < 4 * MIB
    assert same_content(source_disk, disk)
    assert allocated_bytes(disk) >= 16 * MIB


LOOP_BYTES = 32 * MIB


@pytest.fixture(params=["512", "4096"])
def device(world, request):
    """A block device full of old data, over the file 'image'."""
    image = make_disk(world.path("image"), LOOP_BYTES, [(0, LOOP_BYTES)], seed=2)
    with loop_device(image, "--sector-size", request.param) as made:
        yield made


def test_a_copy_to_a_block_device_leaves_no_old_data_and_trims_what_is_zero(world, device):
    source = half_zeroes(world.path("source"), LOOP_BYTES)
    result = world.client("copy", source, device)
    assert result.returncode == 0, result.stderr
    assert same_content(source, device)
    assert same_content(source, world.path("image"))
    assert allocated_bytes(world.path("image")) <= MIB + 256 * KIB


@pytest.mark.parametrize("cache", ["writeback", "direct"])
def test_a_mirror_to_a_block_device_leaves_no_old_data_and_trims_what_is_zero(world, device, cache):
    source_disk = half_zeroes(world.path("source"), LOOP_BYTES)
    with world.server(f"d={source_disk}") as source, \
            world.server(f"d={device},cache={cache}") as target, \
            Writer(world, source, area=MIB) as writer:
        with world.mirror(source.source("d"), target.uri("d")) as mirror:
            mirror.wait_for_phase("ready")
            handle = connect(source)
            handle.pwrite(b"x" * 4 * MIB, 20 * MIB)
            passes = mirror.status()["disks"][0]["passes"]
            wait_for(lambda: mirror.status()["disks"][0]["passes"] > passes + 1)  # it was copied
            handle.trim(4 * MIB, 20 * MIB)
            handle.zero(70 * KIB, 9 * MIB + 5)
            count = writer.count
            wait_for(lambda: writer.count > count + 50)
            assert mirror.cutover().returncode == 0
            mirror.wait()
        writer.join(60)
    assert same_content(source_disk, device)
    assert same_content(source_disk, world.path("image"))
    # What the writer wrote, and what the source began with.
    assert allocated_bytes(world.path("image")) <= 2 * MIB + 256 * KIB
