# SPDX-License-Identifier: Apache-2.0
"""`nbd-mirror copy` and `verify` against other people's servers."""

import json
import os
import random

import pytest

from harness import KIB, MIB, allocated_bytes, make_disk, need, same_content
from peers import NbdServer, Nbdkit, QemuNbd, Recorder, data_ranges, must

SIZES = [1, 511, 513, 4097, MIB + 1, 3 * MIB + 777]
DISK_BYTES = 16 * MIB


def sparse_disk(world, name="source", size=DISK_BYTES, seed=1):
    """Data at both ends and in the middle, holes between."""
    pieces = [(0, 64 * KIB), (5 * MIB, MIB), (size - 64 * KIB, 64 * KIB)]
    return make_disk(world.path(name), size, pieces, seed)


def full_disk(world, name="target", size=DISK_BYTES, seed=2):
    return make_disk(world.path(name), size, [(0, size)], seed)


def copy(world, source, target, *options):
    result = world.client("copy", source, target, "--progress", "none", *options)
    assert result.returncode == 0, result.stderr
    return result


def refused(world, source, target, *options):
    """Copies, which has to fail: the one line that says why."""
    result = world.client("copy", source, target, "--progress", "none", *options)
    assert result.returncode == 1, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def verify(world, source, target):
    return world.client("verify", source, target, "--progress", "none")


# --- nbdkit ---

@pytest.mark.parametrize("size", SIZES)
def test_every_size_goes_to_nbdkit_and_comes_back(world, size):
    source = make_disk(world.path("source"), size, [(0, size)])
    with Nbdkit(world, "memory", str(size)) as server:
        copy(world, source, server.uri)
        assert verify(world, source, server.uri).returncode == 0
        copy(world, server.uri, world.path("back"), "--create")
    assert same_content(source, world.path("back"))


@pytest.mark.parametrize("size", SIZES)
def test_old_data_in_an_nbdkit_file_is_replaced(world, size):
    source = make_disk(world.path("source"), size, [(0, size // 3)])
    target = full_disk(world, size=size)
    with Nbdkit(world, "file", target) as server:
        copy(world, source, server.uri)
    assert same_content(source, target)
    assert os.path.getsize(target) == size


def test_thin_disk_arrives_thin_in_an_nbdkit_file(world):
    source, target = sparse_disk(world), full_disk(world)
    with Nbdkit(world, "file", target) as server:
        copy(world, source, server.uri)
    assert same_content(source, target)
    assert allocated_bytes(target) <= allocated_bytes(source) + 64 * KIB


def test_random_sparse_disk_is_copied_between_two_nbdkits(world):
    with Nbdkit(world, "sparse-random", "64M", "seed=5", "percent=20") as source, \
            Nbdkit(world, "memory", "64M") as target:
        copy(world, source.uri, target.uri)
        must(world, "nbdcopy", source.uri, world.path("a"))
        must(world, "nbdcopy", target.uri, world.path("b"))
        assert same_content(world.path("a"), world.path("b"))
        assert verify(world, source.uri, target.uri).returncode == 0


def test_verify_names_the_first_difference(world):
    disk = sparse_disk(world)
    with Nbdkit(world, "file", disk) as server:
        other = sparse_disk(world, "other")
        with open(other, "r+b") as file:
            file.seek(9 * MIB + 5)
            file.write(b"!")
        result = verify(world, server.uri, other)
        assert result.returncode == 3
        assert str(9 * MIB) in result.stdout + result.stderr


@pytest.mark.parametrize("operation, verb", [("pread", "read"), ("extents", "extents")])
def test_error_of_the_source_is_one_clear_line(world, operation, verb):
    source, target = sparse_disk(world), full_disk(world)
    options = [f"error-{operation}=EIO", f"error-{operation}-rate=100%"]
    with Nbdkit(world, "file", source, *options, filters=["error"]) as server:
        line = refused(world, server.uri, target)
        assert verb in line and "Input/output error" in line and str(server.socket) in line


@pytest.mark.parametrize("operation, verb", [("pwrite", "write"), ("zero", "zero")])
@pytest.mark.parametrize("error, words", [("EIO", "Input/output error"),
                                          ("ENOSPC", "No space left on device")])
def test_error_of_the_target_is_one_clear_line(world, operation, verb, error, words):
    source, target = sparse_disk(world), full_disk(world)
    options = [f"error-{operation}={error}", f"error-{operation}-rate=100%"]
    with Nbdkit(world, "file", target, *options, filters=["error"]) as server:
        line = refused(world, source, server.uri)
        assert verb in line and words in line and str(server.socket) in line


def test_one_failed_write_in_hundreds_fails_the_copy(world):
    source = full_disk(world, "source", 64 * MIB)
    # Every write works but those of one MiB.
    fail = 'if [ "$4" -ge 50331648 ] && [ "$4" -lt 51380224 ]; then echo EIO bad >&2; exit 1; fi'
    with Recorder(world, full_disk(world, size=64 * MIB),
                  pwrite=f"cat > /dev/null; {fail}") as server:
        line = refused(world, source, server.uri)
        assert "write" in line and "Input/output error" in line


def test_failed_flush_fails_the_copy(world):
    source = sparse_disk(world)
    with Recorder(world, full_disk(world), flush="echo EIO no battery >&2; exit 1") as server:
        line = refused(world, source, server.uri)
        assert "flush" in line and "Input/output error" in line


@pytest.mark.parametrize("size", [DISK_BYTES, 3 * MIB + 777])
def test_target_without_write_zeroes_gets_zeroes_and_does_not_hang(world, size):
    source = make_disk(world.path("source"), size, [(MIB, 512 * KIB)])
    target = full_disk(world, size=size)
    with Nbdkit(world, "file", target, "zeromode=none", filters=["nozero"]) as server:
        result = world.client("copy", source, server.uri, "--progress", "none")
        assert result.returncode == 0, result.stderr
    assert same_content(source, target)


def test_target_without_write_zeroes_and_trim_gets_zeroes(world):
    source, target = sparse_disk(world), full_disk(world)
    with Recorder(world, target, can_zero="exit 3", zero=None) as server:
        copy(world, source, server.uri)
        assert server.requests("zero") == []
    assert same_content(source, target)


@pytest.mark.parametrize("side", ["source", "target", "both"])
@pytest.mark.parametrize("lacking", ["noextents", "multi-conn", "nozero"])
def test_server_without_an_ability_serves_all_the_same(world, side, lacking):
    size = 6 * MIB + 777
    source, target = sparse_disk(world, size=size), full_disk(world, size=size)
    option = {"noextents": [], "multi-conn": ["multi-conn-mode=disable"],
              "nozero": ["zeromode=none"]}[lacking]

    def parts(name):
        return (option, [lacking]) if side in (name, "both") else ([], [])

    options, filters = parts("source")
    with Nbdkit(world, "file", source, *options, filters=filters, read_only=True) as left:
        options, filters = parts("target")
        with Nbdkit(world, "file", target, *options, filters=filters) as right:
            copy(world, left.uri, right.uri)
            assert verify(world, left.uri, right.uri).returncode == 0
    assert same_content(source, target)


def test_read_only_target_is_refused_before_anything_is_written(world):
    source, target = sparse_disk(world), full_disk(world)
    before = target.read_bytes()
    with Recorder(world, target, read_only=True) as server:
        line = refused(world, source, server.uri)
        assert "read-only" in line and str(server.socket) in line
        assert server.requests("write", "zero", "trim") == []
    assert target.read_bytes() == before


@pytest.mark.parametrize("missing", [1, 512, 2 * MIB])
def test_smaller_target_is_refused_before_anything_is_written(world, missing):
    source, target = sparse_disk(world), full_disk(world, size=DISK_BYTES - missing)
    with Recorder(world, target) as server:
        line = refused(world, source, server.uri)
        assert "small" in line and str(DISK_BYTES - missing) in line and str(DISK_BYTES) in line
        assert server.requests("write", "zero", "trim") == []


def test_missing_server_is_one_clear_line(world):
    line = refused(world, sparse_disk(world), f"nbd+unix:///?socket={world.path('nobody.sock')}")
    assert "nobody.sock" in line and "No such file" in line


def test_server_that_dies_in_the_middle_fails_the_copy(world):
    source = full_disk(world, "source", 64 * MIB)
    target = full_disk(world, "target", 64 * MIB, seed=3)
    stop = 'if [ "$4" -ge 33554432 ]; then kill -9 $PPID; fi; cat > /dev/null'
    with Recorder(world, target, pwrite=stop) as server:
        refused(world, source, server.uri)
        server.wait()
        server.expect = None


def test_slow_server_is_waited_for(world):
    source, target = sparse_disk(world), full_disk(world)
    delays = ["wdelay=200ms", "delay-zero=200ms"]
    with Nbdkit(world, "file", target, *delays, filters=["delay"]) as server:
        copy(world, source, server.uri)
    assert same_content(source, target)


@pytest.mark.parametrize("limit", [64 * KIB, 1 * MIB])
def test_servers_limits_on_requests_are_kept(world, limit):
    source, target = sparse_disk(world), full_disk(world)
    options = ["blocksize-minimum=4096", "blocksize-preferred=4096", f"blocksize-maximum={limit}",
               "blocksize-error-policy=error"]
    with Nbdkit(world, "file", target, *options, filters=["blocksize-policy"]) as server:
        copy(world, source, server.uri)
        copy(world, server.uri, world.path("back"), "--create")
    assert same_content(source, target) and same_content(source, world.path("back"))


def test_small_limit_applies_to_the_source_too(world):
    source = sparse_disk(world)
    options = ["blocksize-minimum=512", "blocksize-preferred=4096", "blocksize-maximum=65536",
               "blocksize-error-policy=error"]
    with Nbdkit(world, "file", source, *options, filters=["blocksize-policy"]) as server:
        copy(world, server.uri, world.path("target"), "--create")
    assert same_content(source, world.path("target"))


# --- The exact requests ---

def covered(requests):
    """The bytes that these requests touch, as merged (offset, end), and whether any two overlap."""
    merged, overlap = [], False
    for offset, length in sorted(request[1:] for request in requests):
        if merged and offset < merged[-1][1]:
            overlap = True
        if merged and offset <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], offset + length)
        else:
            merged.append([offset, offset + length])
    return [tuple(each) for each in merged], overlap


def ends(ranges):
    return [(offset, offset + length) for offset, length in ranges]


@pytest.mark.parametrize("options", [(), ("-c", "1"), ("--requests", "1"),
                                     ("--request-size", "64K")],
                         ids=lambda each: "".join(each) or "default")
def test_holes_are_never_sent_as_data_and_a_flush_comes_last(world, options):
    source, target = sparse_disk(world), full_disk(world)
    with Recorder(world, target) as server:
        copy(world, source, server.uri, *options)
        requests = server.requests()
    written, twice = covered([each for each in requests if each[0] == "write"])
    assert written == ends(data_ranges(source)) and not twice
    zeroed, twice = covered([each for each in requests if each[0] == "zero"])
    assert not twice
    everything, overlap = covered([each for each in requests if each[0] in ("write", "zero")])
    assert everything == [(0, DISK_BYTES)] and not overlap
    assert zeroed and requests[-1] == ("flush",)
    assert same_content(source, target)


def test_hole_costs_few_requests_however_long_it_is(world):
    size = 64 << 30
    source = make_disk(world.path("source"), size, [(1 << 30, 64 * KIB)])
    target = make_disk(world.path("target"), size)
    log = world.path("zeroes")
    with Recorder(world, target, zero=f"echo zero $4 $3 >> '{log}'") as server:
        copy(world, source, server.uri)
        assert covered(server.requests("write"))[0] == [(1 << 30, (1 << 30) + 64 * KIB)]
    zeroes = [line.split() for line in log.read_text().splitlines()]
    assert sum(int(length) for _, _, length in zeroes) == size - 64 * KIB
    # A length has 32 bits on the wire: a request for each GiB is few.
    assert len(zeroes) <= 128


def test_target_without_multi_conn_gets_its_writes_and_the_flush_on_one_connection(world):
    source = full_disk(world, "source", 32 * MIB)
    opened, used = world.path("opened"), world.path("used")
    with Recorder(world, full_disk(world, size=32 * MIB),
                  open=f"echo x >> '{opened}'; wc -l < '{opened}'",
                  pwrite=f"echo $2 >> '{used}'; cat > /dev/null",
                  flush=f"echo $2 >> '{used}'") as server:
        copy(world, source, server.uri, "--connections", "8")
    assert len(set(used.read_text().split())) == 1


def test_target_that_cannot_flush_is_copied_to_with_a_warning(world):
    source, target = sparse_disk(world), full_disk(world)
    with Recorder(world, target, can_flush="exit 3", flush=None) as server:
        result = copy(world, source, server.uri)
        assert "flush" in result.stderr
    assert same_content(source, target)


def test_nothing_is_zeroed_where_the_target_is_trusted_to_be_zero(world):
    source, target = sparse_disk(world), make_disk(world.path("target"), DISK_BYTES)
    with Recorder(world, target) as server:
        copy(world, source, server.uri, "--target-is-zero")
        assert server.requests("zero") == []
        assert covered(server.requests("write"))[0] == ends(data_ranges(source))
        assert server.requests()[-1] == ("flush",)
    assert same_content(source, target)


def test_nothing_is_zeroed_where_the_target_says_that_it_is_zero(world):
    source, target = sparse_disk(world), make_disk(world.path("target"), DISK_BYTES)
    with Recorder(world, target, can_extents="exit 0",
                  extents="echo $4 $3 hole,zero") as server:
        copy(world, source, server.uri)
        assert server.requests("zero") == []
        assert server.requests()[-1] == ("flush",)
    assert same_content(source, target)


def test_hole_that_does_not_read_as_zero_is_zeroed(world):
    # A hole without the zero flag promises nothing about what is read.
    source, target = sparse_disk(world), full_disk(world)
    with Recorder(world, target, can_extents="exit 0", extents="echo $4 $3 hole") as server:
        copy(world, source, server.uri)
    assert same_content(source, target)


def test_hole_of_the_source_that_does_not_read_as_zero_is_read(world):
    source = full_disk(world, "source")
    with Recorder(world, source, can_extents="exit 0", extents="echo $4 $3 hole",
                  can_write="exit 3") as server:
        copy(world, server.uri, world.path("target"), "--create")
    assert same_content(source, world.path("target"))


def test_holes_of_the_source_are_never_read(world):
    source = sparse_disk(world)
    pieces = data_ranges(source)
    # The whole map at each question: nbdkit cuts it to what was asked for.
    extents, at = [], 0
    for offset, length in [*pieces, (DISK_BYTES, 0)]:
        if offset > at:
            extents.append(f"echo {at} {offset - at} hole,zero")
        if length:
            extents.append(f"echo {offset} {length}")
        at = offset + length
    with Recorder(world, source, can_extents="exit 0", extents="; ".join(extents),
                  can_write="exit 3") as server:
        copy(world, server.uri, world.path("target"), "--create")
        assert covered(server.requests("read")) == (ends(pieces), False)
    assert same_content(source, world.path("target"))


def test_zeroes_inside_data_are_not_sent_as_data(world):
    source = world.path("source")
    data = random.Random(1).randbytes(MIB)
    source.write_bytes(data + bytes(4 * MIB) + data + bytes(2 * MIB))
    target = full_disk(world, size=8 * MIB)
    with Recorder(world, target) as server:
        copy(world, source, server.uri)
        assert covered(server.requests("write"))[0] == [(0, MIB), (5 * MIB, 6 * MIB)]
    assert same_content(source, target)


def test_allocated_sends_every_byte_as_data(world):
    source, target = sparse_disk(world), full_disk(world)
    with Recorder(world, target) as server:
        copy(world, source, server.uri, "--allocated")
        assert covered(server.requests("write")) == ([(0, DISK_BYTES)], False)
        assert server.requests("zero") == []
        assert server.requests()[-1] == ("flush",)
    assert same_content(source, target)


# --- qemu-nbd ---

@pytest.mark.parametrize("size", [512, 4608, MIB + 512, 3 * MIB + 1024])
def test_every_size_goes_to_qemu_nbd_and_comes_back(world, size):
    source, target = full_disk(world, "source", size), full_disk(world, size=size, seed=3)
    with QemuNbd(world, target) as server:
        copy(world, source, server.uri)
        copy(world, server.uri, world.path("back"), "--create")
    assert same_content(source, target)
    assert same_content(source, world.path("back"))


@pytest.mark.parametrize("size", SIZES)
def test_size_that_qemu_nbd_rounds_up_is_copied_in_full(world, size):
    source, target = full_disk(world, "source", size), full_disk(world, size=size, seed=3)
    with QemuNbd(world, target) as server:
        copy(world, source, server.uri)
    assert same_content(source, target, size)


@pytest.mark.parametrize("options", [(), ("--detect-zeroes=unmap",),
                                     ("--cache=none", "--aio=native")],
                         ids=lambda each: "".join(each) or "default")
def test_old_data_in_a_qemu_nbd_raw_disk_is_replaced(world, options):
    source, target = sparse_disk(world), full_disk(world)
    with QemuNbd(world, target, options=options) as server:
        copy(world, source, server.uri)
        assert verify(world, source, server.uri).returncode == 0
    assert same_content(source, target)
    assert allocated_bytes(target) <= allocated_bytes(source) + 64 * KIB


@pytest.mark.parametrize("dirty", [False, True])
def test_qcow2_target_is_clean_under_the_holes_of_the_source(world, dirty):
    need("qemu-img")
    source, image = sparse_disk(world), world.path("image.qcow2")
    must(world, "qemu-img", "create", "-f", "qcow2", image, str(DISK_BYTES))
    if dirty:
        must(world, "qemu-io", "-f", "qcow2", "-c", f"write -P 0xee 0 {DISK_BYTES}", image)
    with QemuNbd(world, image, "qcow2") as server:
        copy(world, source, server.uri)
        assert verify(world, source, server.uri).returncode == 0
    must(world, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, image)
    must(world, "qemu-img", "check", image)
    extents = json.loads(must(world, "qemu-img", "map", "--output=json", "-f", "qcow2", image))
    data = sum(each["length"] for each in extents if not each["zero"])
    assert data <= allocated_bytes(source) + 128 * KIB


def test_qcow2_over_a_backing_file_hides_the_backing_file(world):
    backing, image = full_disk(world, "backing"), world.path("image.qcow2")
    source = sparse_disk(world)
    must(world, "qemu-img", "create", "-f", "qcow2", "-b", backing, "-F", "raw", image)
    before = backing.read_bytes()
    with QemuNbd(world, image, "qcow2") as server:
        copy(world, source, server.uri)
    must(world, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, image)
    assert backing.read_bytes() == before


def test_qcow2_source_is_copied_with_its_holes(world):
    disk = sparse_disk(world)
    must(world, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, world.path("a.qcow2"))
    with QemuNbd(world, world.path("a.qcow2"), "qcow2", ["--read-only"]) as server:
        copy(world, server.uri, world.path("target"), "--create")
    assert same_content(disk, world.path("target"))
    assert allocated_bytes(world.path("target")) <= allocated_bytes(disk) + 128 * KIB


def test_read_only_qemu_nbd_is_refused_before_anything_is_written(world):
    source, target = sparse_disk(world), full_disk(world)
    before = target.read_bytes()
    with QemuNbd(world, target, options=["--read-only"]) as server:
        assert "read-only" in refused(world, source, server.uri)
    assert target.read_bytes() == before


def test_wrong_export_name_is_one_clear_line(world):
    source, target = sparse_disk(world), full_disk(world)
    with QemuNbd(world, target) as server:
        assert "nothing" in refused(world, source, server.uri.replace("/disk?", "/nothing?"))


# --- nbd-server ---

@pytest.mark.parametrize("size", SIZES)
def test_every_size_goes_to_nbd_server_and_comes_back(world, size):
    source, target = full_disk(world, "source", size), full_disk(world, size=size, seed=3)
    with NbdServer(world, target) as server:
        copy(world, source, server.uri)
        assert verify(world, source, server.uri).returncode == 0
        copy(world, server.uri, world.path("back"), "--create")
    assert same_content(source, target)
    assert same_content(source, world.path("back"))


def test_old_data_in_an_nbd_server_file_is_replaced(world):
    source, target = sparse_disk(world), full_disk(world)
    with NbdServer(world, target) as server:
        copy(world, source, server.uri)
    assert same_content(source, target)


def test_read_only_nbd_server_is_refused_before_anything_is_written(world):
    source, target = sparse_disk(world), full_disk(world)
    before = target.read_bytes()
    with NbdServer(world, target, ["readonly = true"]) as server:
        assert "read-only" in refused(world, source, server.uri)
    assert target.read_bytes() == before


# --- One after the other ---

def test_disk_is_the_same_after_a_trip_through_every_server(world):
    disk = sparse_disk(world, size=3 * MIB * 4 + 1024)
    size = os.path.getsize(disk)
    stations = [full_disk(world, f"station{number}", size, seed=number + 5) for number in range(4)]
    with Nbdkit(world, "file", stations[0]) as nbdkit, QemuNbd(world, stations[1]) as qemu, \
            NbdServer(world, stations[2]) as reference, \
            world.server(f"d={stations[3]}") as ours:
        copy(world, disk, nbdkit.uri)
        copy(world, nbdkit.uri, qemu.uri)
        copy(world, qemu.uri, reference.uri)
        copy(world, reference.uri, ours.uri("d", tcp=True))
        assert verify(world, disk, ours.uri("d")).returncode == 0
    for station in stations:
        assert same_content(disk, station)
