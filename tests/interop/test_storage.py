# SPDX-License-Identifier: Apache-2.0
"""The storage under an export: file systems, block devices, and a disk that fails. Needs root, for
mounts and loop devices."""

import contextlib
import errno
import os
import pathlib
import random
import subprocess
import time

import pytest

from harness import GIB, KIB, MIB, allocated_bytes, loop_device, need, wait_for
from meddling import meddling, standstill, tracer
from peers import must

nbd = pytest.importorskip("nbd")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and loop devices need root")

FILE_SYSTEMS = {"ext3": ["mkfs.ext3", "-q"], "ext4": ["mkfs.ext4", "-q"], "xfs": ["mkfs.xfs", "-q"],
                "btrfs": ["mkfs.btrfs", "-q"]}


def call(*arguments):
    return subprocess.run([str(each) for each in arguments], check=True, capture_output=True,
                          text=True).stdout.strip()


@contextlib.contextmanager
def file_system(world, kind):
    """A directory on a new file system of this kind."""
    need(FILE_SYSTEMS[kind][0])
    image, mounted = world.path("image"), world.path("mounted")
    with open(image, "wb") as file:
        file.truncate(320 * MIB)
    mounted.mkdir()
    call(*FILE_SYSTEMS[kind], image)
    try:
        call("mount", "-o", "loop", image, mounted)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{kind} cannot be mounted: {error.stderr}")
    try:
        yield mounted
    finally:
        unmount("umount", mounted)


def unmount(*command):
    """The kernel takes down what a process had open after the process has ended."""
    wait_for(lambda: subprocess.run([str(each) for each in command], check=False,
                                    capture_output=True).returncode == 0, what=command[0])


@contextlib.contextmanager
def disk_on(world, storage, size):
    """A disk of `size` on `storage`: its path."""
    if storage == "tmpfs":
        path = pathlib.Path("/dev/shm", f"nbd-mirror-test-{os.getpid()}")
        try:
            with open(path, "wb") as file:
                file.truncate(size)
            yield path
        finally:
            path.unlink()
    elif storage.startswith("loop"):
        image = world.path("loop-image")
        with open(image, "wb") as file:
            file.truncate(size)
        with loop_device(image, "--sector-size", storage[len("loop"):]) as device:
            yield device
    else:
        with file_system(world, storage) as directory:
            path = directory / "disk"
            with open(path, "wb") as file:
                file.truncate(size)
            yield path


def connect(server, name="d"):
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.connect_uri(server.uri(name))
    return handle


STORAGE = pytest.mark.parametrize("storage, cache", [
    ("tmpfs", "writeback"), ("ext4", "writeback"), ("xfs", "writeback"), ("btrfs", "writeback"),
    ("ext4", "direct"), ("xfs", "direct"), ("btrfs", "direct"),
    ("loop512", "writeback"), ("loop512", "direct"), ("loop4096", "writeback"),
    ("loop4096", "direct")])


@STORAGE
def test_whatever_is_written_zeroed_and_trimmed_is_there(world, storage, cache):
    size = 8 * MIB + (0 if storage.startswith("loop") else 777)
    chance = random.Random(f"{storage} {cache}")
    expected = bytearray(size)
    with disk_on(world, storage, size) as disk:
        with world.server(f"d={disk},cache={cache}") as server:
            handle = connect(server)
            for number in range(250):
                unit = chance.choice([1, 512, 4096, 64 * KIB])
                offset = chance.randrange(size // unit) * unit
                length = min(chance.randrange(1, 1 + 256 * KIB // unit) * unit, size - offset)
                end = offset + length
                kind = chance.choice(["write", "zero", "no_hole", "fast", "trim"])
                if kind == "write":
                    data = bytes([1 + number % 255]) * length
                    handle.pwrite(data, offset)
                    expected[offset:end] = data
                elif kind == "trim":
                    handle.trim(length, offset)
                    # Each byte is what it was, or zero.
                    now = handle.pread(length, offset)
                    assert all(new in (0, old) for new, old in zip(now, expected[offset:end]))
                    expected[offset:end] = now
                else:
                    flags = {"zero": 0, "no_hole": nbd.CMD_FLAG_NO_HOLE,
                             "fast": nbd.CMD_FLAG_FAST_ZERO}[kind]
                    try:
                        handle.zero(length, offset, flags)
                        expected[offset:end] = bytes(length)
                    except nbd.Error as error:
                        assert kind == "fast" and error.errnum == errno.ENOTSUP
            handle.flush()
            assert handle.pread(size, 0) == expected
            handle.shutdown()
        with open(disk, "rb") as file:
            assert file.read(size) == expected


@STORAGE
def test_zeroes_without_a_hole_stay_allocated_and_others_go(world, storage, cache):
    size = 8 * MIB
    image = world.path("loop-image")
    with disk_on(world, storage, size) as disk:
        def allocated():
            os.sync()
            return allocated_bytes(image if storage.startswith("loop") else disk)

        with world.server(f"d={disk},cache={cache}") as server:
            handle = connect(server)
            handle.pwrite(random.Random(1).randbytes(size), 0)
            handle.flush()
            full = allocated()
            assert full >= size
            handle.zero(size, 0, nbd.CMD_FLAG_NO_HOLE)
            handle.flush()
            assert handle.pread(size, 0) == bytes(size)
            assert allocated() >= size
            handle.zero(size, 0)
            handle.flush()
            assert handle.pread(size, 0) == bytes(size)
            assert allocated() < MIB
            handle.shutdown()


def test_the_file_system_is_asked_once_where_data_ends_and_again_when_there_is_a_hole(world):
    # tmpfs goes through every page up to there, each time that it is asked.
    def zeroes(handle, offset):
        """Whether the extent that begins there reads as zero."""
        found = []
        handle.block_status(MIB, offset, lambda _, at, entries, error: found.append(entries[1]))
        return bool(found[0] & nbd.STATE_ZERO)

    with disk_on(world, "tmpfs", 64 * MIB) as disk, world.server(f"d={disk}") as server:
        one, other = (nbd.NBD() for _ in range(2))
        for handle in (one, other):
            handle.add_meta_context("base:allocation")
            handle.connect_uri(server.uri("d"))
        one.pwrite(b"x" * 32 * MIB, 0)
        assert not zeroes(one, 0)
        with standstill(server, "lseek"):
            assert not any(zeroes(one, offset) for offset in range(0, 32 * MIB, MIB))
        assert zeroes(one, 32 * MIB)
        for make_hole in (other.trim, other.zero):
            assert not zeroes(one, 0)
            make_hole(4 * MIB, 0)
            assert zeroes(one, 0)
            one.pwrite(b"x" * 4 * MIB, 0)
        for handle in (one, other):
            handle.shutdown()


@pytest.mark.parametrize("storage", ["loop512", "loop4096"])
def test_a_fast_zero_that_would_have_to_write_says_so_and_does_nothing(world, storage):
    with disk_on(world, storage, MIB) as disk, world.server(f"d={disk}") as server:
        handle = connect(server)
        handle.pwrite(b"x" * MIB, 0)
        with pytest.raises(nbd.Error) as refused:
            handle.zero(100, 4097, nbd.CMD_FLAG_FAST_ZERO)
        assert refused.value.errnum == errno.ENOTSUP
        assert handle.pread(MIB, 0) == b"x" * MIB
        handle.shutdown()


@pytest.mark.parametrize("cache", ["direct", "writeback"])
def test_unaligned_zeroes_arrive_where_the_file_system_cannot_zero_a_range(world, cache):
    # ext3 punches holes, and knows no other way; NO_HOLE forbids that one.
    with disk_on(world, "ext3", MIB) as disk, world.server(f"d={disk},cache={cache}") as server:
        handle = connect(server)
        handle.pwrite(b"x" * MIB, 0)
        handle.zero(100_000, 100, nbd.CMD_FLAG_NO_HOLE)
        handle.zero(7, 300_001, nbd.CMD_FLAG_NO_HOLE)
        expected = b"x" * 100 + b"\0" * 100_000
        expected += b"x" * (300_001 - len(expected)) + b"\0" * 7
        assert handle.pread(MIB, 0) == expected + b"x" * (MIB - len(expected))
        handle.shutdown()


def test_odd_ends_do_not_keep_a_cached_device_from_zeroing_by_itself(world):
    size = 16 * MIB
    with disk_on(world, "loop4096", size) as disk, world.server(f"d={disk}") as server:
        handle = connect(server)
        handle.pwrite(b"x" * size, 0)
        handle.flush()
        handle.zero(size - 1024, 512, nbd.CMD_FLAG_FUA)
        assert handle.pread(size, 0) == b"x" * 512 + bytes(size - 1024) + b"x" * 512
        assert allocated_bytes(world.path("loop-image")) < MIB
        handle.shutdown()


def test_zeroing_most_of_a_direct_device_keeps_nobody_waiting(world):
    with disk_on(world, "loop512", 16 * GIB) as disk, \
            world.server(f"d={disk},cache=direct") as server:
        handle, other = connect(server), connect(server)
        other.pwrite(b"x" * 512, 0)
        zeroing = handle.aio_zero(3 * GIB, 1)
        other.pwrite(b"y" * 512, 8 * GIB)
        while not handle.aio_command_completed(zeroing):
            handle.poll(1000)
        assert other.pread(512, 0) == b"x" + b"\0" * 511
        # Alone, and so in everybody's way, are only the two ends: had it been written all, all of it
        # would be there.
        assert allocated_bytes(world.path("loop-image")) < MIB
        handle.shutdown()
        other.shutdown()


def test_a_client_is_not_blamed_for_a_disk_that_stood_still(world):
    need("fsfreeze")
    with file_system(world, "ext4") as directory:
        disk = directory / "disk"
        with open(disk, "wb") as file:
            file.truncate(64 * MIB)
        with world.server(f"d={disk}", options=["--request-timeout", "1"]) as server:
            handle = connect(server)
            handle.pwrite(b"x" * 4096, 0)
            call("fsfreeze", "--freeze", directory)
            try:
                buffers = [nbd.Buffer.from_bytearray(bytearray(size)) for size in (4096, 32 * MIB)]
                small = handle.aio_pwrite(buffers[0], 0)
                large = handle.aio_pwrite(buffers[1], MIB)
                begun = time.monotonic()
                while time.monotonic() - begun < 3:
                    handle.poll(100)
            finally:
                call("fsfreeze", "--unfreeze", directory)
            for command in (small, large):
                while not handle.aio_command_completed(command):
                    assert handle.poll(10_000) == 1
            handle.shutdown()


@pytest.mark.parametrize("storage, least", [("loop512", 512), ("loop4096", 4096)])
def test_direct_exports_advertise_the_storages_block(world, storage, least):
    with disk_on(world, storage, MIB) as disk, world.server(f"d={disk},cache=direct") as server:
        handle = connect(server)
        assert handle.get_block_size(nbd.SIZE_MINIMUM) == least
        assert handle.get_block_size(nbd.SIZE_PREFERRED) == 4096
        handle.shutdown()


@pytest.mark.parametrize("storage", ["tmpfs", "ext4", "xfs", "btrfs"])
def test_what_a_truncated_file_has_lost_is_an_error_and_the_client_stays(world, storage):
    with disk_on(world, storage, 2 * MIB) as disk, world.server(f"d={disk}") as server:
        handle = connect(server)
        handle.pwrite(b"x" * (2 * MIB), 0)
        os.truncate(disk, MIB)
        for offset, length in [(MIB, MIB), (MIB - 64 * KIB, 256 * KIB), (2 * MIB - 512, 512)]:
            with pytest.raises(nbd.Error) as refused:
                handle.pread(length, offset)
            assert refused.value.errnum == errno.EIO
        assert handle.pread(MIB, 0) == b"x" * MIB
        handle.shutdown()


FAILING_DISK = ["get_size=echo 1M",
                'pread=dd if=/dev/zero count=$3 iflag=count_bytes status=none',
                "pwrite=cat >/dev/null", "can_flush=exit 0",
                'flush=if [ -e "$FAIL" ]; then echo EIO no >&2; exit 1; fi']


@contextlib.contextmanager
def disk_that_can_fail(world):
    """A file whose sync fails while a second file is there: (file, second file)."""
    for program in ("nbdkit", "nbdfuse", "fusermount3"):
        need(program)
    failing, mounted = world.path("failing"), world.path("fuse")
    mounted.mkdir()
    log = open(world.quick("nbdfuse.log"), "wb")  # noqa: SIM115: closed below
    fuse = subprocess.Popen(
        ["nbdfuse", str(mounted / "disk"), "--command", "nbdkit", "-s", "eval", *FAILING_DISK],
        env=dict(world.env, FAIL=str(failing)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for((mounted / "disk").exists)
        yield mounted / "disk", failing
    finally:
        with contextlib.suppress(AssertionError):  # where it was not mounted
            unmount("fusermount3", "-u", mounted)
        fuse.wait(60)
        log.close()


def test_a_sync_that_failed_once_fails_every_later_flush_everywhere(world):
    with disk_that_can_fail(world) as (disk, failing):
        with world.server(f"d={disk}") as server:
            first, second = connect(server), connect(server)
            first.pwrite(b"x" * 4096, 0)
            first.flush()
            second.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)
            assert server.export("d")["write_error"] is None
            failing.touch()
            first.pwrite(b"y" * 4096, 0)
            with pytest.raises(nbd.Error) as refused:
                first.flush()
            assert refused.value.errnum == errno.EIO
            failing.unlink()
            # The storage has got well; what was lost has not come back.
            for handle in (first, second, connect(server)):
                with pytest.raises(nbd.Error):
                    handle.flush()
            assert server.export("d")["write_error"]
            assert 'nbd_mirror_export_write_error{export="d"} 1' in server.ask("GET", "/metrics")[1]
            server.wait_for_message("from now on every flush fails")


def test_a_flush_that_takes_long_holds_up_no_read(world):
    def is_overtaken():
        """Whether a read is answered before the flush of 128 MiB that was asked for first."""
        for part in range(8):
            handle.pwrite(os.urandom(16 * MIB), part * 16 * MIB)
        flush = handle.aio_flush()
        read = handle.aio_pread(nbd.Buffer(4096), 0)
        overtaken = False
        while not handle.aio_command_completed(flush):
            overtaken = overtaken or handle.aio_command_completed(read)
            handle.poll(100)
        return overtaken

    with disk_on(world, "ext4", 128 * MIB) as disk, world.server(f"d={disk}") as server:
        handle = connect(server)
        # A disk may be quicker than a busy machine lets us look.
        assert any(is_overtaken() for _ in range(10))


def test_forced_unit_access_fails_when_the_sync_does(world):
    with disk_that_can_fail(world) as (disk, failing), world.server(f"d={disk}") as server:
        handle = connect(server)
        failing.touch()
        for attempt in (lambda: handle.pwrite(b"z" * 512, 0, nbd.CMD_FLAG_FUA),
                        lambda: handle.zero(512, 0, nbd.CMD_FLAG_FUA),
                        lambda: handle.trim(512, 0, nbd.CMD_FLAG_FUA)):
            with pytest.raises(nbd.Error):
                attempt()
        assert server.export("d")["write_error"]


@pytest.mark.parametrize("write", [
    lambda handle: handle.pwrite(b"z" * 100, MIB + 600), lambda handle: handle.zero(100, MIB + 600),
    lambda handle: handle.pwrite(b"z" * 100, 0, nbd.CMD_FLAG_FUA)], ids=["write", "zero", "forced"])
def test_odd_ends_that_could_not_be_made_durable_are_remembered(world, write):
    # The odd end of a direct export's file goes through the page cache.
    disk = world.path("disk")
    disk.write_bytes(b"x" * (MIB + 777))
    with world.server(f"d={disk},cache=direct") as server:
        handle = connect(server)
        handle.pread(512, 0)
        with meddling(server, "fdatasync", "error=EIO"), pytest.raises(nbd.Error):
            write(handle)
        assert server.export("d")["write_error"]
        with pytest.raises(nbd.Error):
            connect(server).flush()


def test_qemu_converts_to_a_block_device(world):
    source = world.path("source")
    source.write_bytes(random.Random(5).randbytes(4 * MIB))
    with disk_on(world, "loop512", 4 * MIB) as disk:
        with world.server(f"d={disk},cache=direct") as server:
            must(world, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source,
                 server.uri("d"))
        assert disk.open("rb").read() == source.read_bytes()


def test_a_device_that_the_host_uses_is_served_for_writing_with_a_warning(world):
    need("mkfs.ext4")
    image, mounted = world.path("image"), world.path("mounted")
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    call("mkfs.ext4", "-q", image)
    mounted.mkdir()

    def warnings(device, keys=""):
        with world.server(f"d={device}{keys}") as server:
            assert server.port  # said last
            return [line for line in server.messages().splitlines() if "warning" in line]

    with loop_device(image) as device:
        assert warnings(device) == []
        call("mount", device, mounted)
        try:
            [line] = warnings(device)
            assert f"'{device}' is mounted at '{mounted}'" in line and "export 'd'" in line
            assert warnings(device, ",ro") == []
        finally:
            call("umount", mounted)
        # As swap space, volume managers and RAID have it.
        claim = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            [line] = warnings(device)
            assert f"'{device}' is in use on this host" in line
        finally:
            os.close(claim)
        assert warnings(device) == []


def test_a_file_that_cannot_be_opened_again_once_it_is_made_does_not_stay(world):
    disk = world.path("disk")
    # It is looked for, made, and then opened without the page cache.
    before = tracer("openat", "error=EINVAL:when=3", "-P", disk)
    result = world.run_server(f"d={disk},size=1M,cache=direct", before=before)
    assert result.returncode == 1 and "without the page cache" in result.stderr, result.stderr
    assert not disk.exists()


def cached_bytes(path):
    return int(call(need("fincore"), "--bytes", "--noheadings", "--output", "res", path))


@pytest.mark.parametrize("cache, wanted", [("writeback", 2 * MIB), ("direct", MIB)])
def test_reading_ahead_fills_the_page_cache_where_it_is_used(world, cache, wanted):
    with disk_on(world, "ext4", 4 * MIB) as disk:
        disk.write_bytes(random.Random(5).randbytes(4 * MIB))
        with open(disk, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with world.server(f"d={disk},cache={cache}") as server:
            handle = connect(server)
            before = cached_bytes(disk)
            assert before < MIB
            handle.cache(MIB, MIB)
            # What is asked for later and is there has nothing before it that is still to come.
            with open(disk, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # and no more
                os.pread(file.fileno(), MIB, 3 * MIB)
            wait_for(lambda: cached_bytes(disk) >= before + wanted)
            assert cached_bytes(disk) < before + wanted + MIB // 2


@STORAGE
def test_what_is_written_and_not_flushed_is_copied_from_the_disk(world, storage, cache):
    # By another program, through another opening.
    size = 4 * MIB
    data = random.Random(3).randbytes(size)
    with disk_on(world, storage, size) as disk, \
            world.server(f"d={disk},cache={cache}") as server:
        handle = connect(server)
        handle.set_strict_mode(0)
        handle.pwrite(data, 0)
        handle.pwrite(data[:1000], 12_345)
        handle.zero(100_001, 1_000_003)
        expected = handle.pread(size, 0)
        read = server.export("d")["read_bytes"]
        done = world.client("copy", server.source("d"), world.path("copy"), "--create")
        assert done.returncode == 0, done.stderr
        assert server.export("d")["read_bytes"] == read
        assert world.path("copy").read_bytes() == expected
        handle.shutdown()
