# SPDX-License-Identifier: Apache-2.0
"""A mirror and a copy read the data of an export of this machine's server from its disk, not over
connections, where they see the same disk."""

import os

import pytest

from harness import KIB, MIB, fio_writer, make_disk, same_content
from nbd_client import connect, write

SIZE = 96 * MIB
DATA = 40 * MIB


@pytest.fixture
def disk(world):
    return make_disk(world.path("source"), SIZE, [(0, DATA)])


@pytest.mark.parametrize("size", [SIZE, SIZE + 5 * KIB + 7], ids=["whole", "odd"])
@pytest.mark.parametrize("cache", ["writeback", "direct"])
def test_what_the_server_writes_is_read_whichever_way_it_writes(world, disk, cache, size):
    os.truncate(disk, size)
    make_disk(world.path("target"), size)
    with world.server(f"d={disk},cache={cache}") as source, \
            world.server(f"d={world.path('target')}") as target:
        with fio_writer(world, source.uri("d"), rate="40m") as fio, \
                world.mirror(source.source("d"), target.uri("d"), "--verify") as mirror:
            mirror.wait_for_phase("ready")
            # Unaligned, and zeroed: what a direct export does in other ways.
            guest = connect(source)
            guest.set_strict_mode(0)
            for i in range(50):
                guest.pwrite(b"u" * 777, i * 50_001)
                guest.zero(33_333, 5 * MIB + i * 40_007)
            assert mirror.cutover().returncode == 0
            fio.wait()  # its writes are refused now
        # The end of a disk that is no whole sector is the server's to read.
        from_server = cache == "direct" and size % 512 != 0
        assert (source.export("d")["read_bytes"] > 0) == from_server
    assert same_content(disk, world.path("target"))


def test_a_copy_of_an_export_reads_its_disk(world, disk):
    with world.server(f"d={disk}") as source:
        done = world.client("copy", source.source("d"), world.path("target"), "--create")
        assert done.returncode == 0, done.stderr
        assert source.export("d")["read_bytes"] == 0
    assert same_content(disk, world.path("target"))


def test_another_file_at_its_path_is_not_taken_for_it(world, disk):
    served = world.path("served")
    os.link(disk, served)
    with world.server(f"d={disk}") as source:
        # The file that is served has another name only.
        other = make_disk(world.path("other"), SIZE, [(0, DATA)], seed=2)
        os.replace(other, disk)
        done = world.client("copy", source.source("d"), world.path("target"), "--create")
        assert done.returncode == 0, done.stderr
        assert source.export("d")["read_bytes"] >= DATA
    assert same_content(served, world.path("target"))


def test_a_disk_that_cannot_be_seen_is_read_from_its_server(world, disk):
    with world.server(f"d={disk}") as source:
        disk.rename(world.path("elsewhere"))
        done = world.client("copy", source.source("d"), world.path("target"), "--create")
        assert done.returncode == 0, done.stderr
        assert source.export("d")["read_bytes"] >= DATA
    assert same_content(world.path("elsewhere"), world.path("target"))


def test_a_server_can_start_again_while_its_disk_is_read(world, disk):
    make_disk(world.path("target"), SIZE)
    with world.server(f"d={world.path('target')}") as target:
        with world.server(f"d={disk}", name="first") as source:
            mirror = world.mirror(source.source("d"), target.uri("d"), "--bwlimit", "4M")
            mirror.wait_for_phase("copying")
            source.kill()
        with mirror:
            with world.server(f"d={disk}", name="first") as source:
                write(source, 0, b"w" * MIB)
                assert world.client("set", "job", "--bwlimit", "off").returncode == 0
                mirror.wait_for_phase("ready")
                assert mirror.cutover().returncode == 0
                mirror.wait()
    assert same_content(disk, world.path("target"))
