# SPDX-License-Identifier: Apache-2.0
"""Other people's NBD clients against our server."""

import concurrent.futures
import ctypes
import json
import os
import random

import pytest

from harness import KIB, MIB, allocated_bytes, make_disk, need, same_content, wait_for
from peers import data_ranges, must, run

TRANSPORTS = pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
SIZES = [1, 511, 513, 4097, MIB + 1, 3 * MIB + 777]
# QEMU rounds sizes to sectors.
SECTOR_SIZES = [512, 4608, MIB + 512, 3 * MIB + 1024]


@pytest.fixture
def nbd():
    return pytest.importorskip("nbd", reason="python3-libnbd is not installed")


def sparse_disk(world, name="disk", size=16 * MIB, seed=1):
    pieces = [(0, 64 * KIB), (5 * MIB, MIB), (size - 64 * KIB, 64 * KIB)]
    return make_disk(world.path(name), size, pieces, seed)


# --- nbdinfo ---

@TRANSPORTS
def test_nbdinfo_lists_every_export_with_its_size(world, tcp):
    first, second = sparse_disk(world), make_disk(world.path("second"), 3 * MIB + 777)
    with world.server(f"first={first}", f"second={second},ro") as server:
        listed = json.loads(must(world, "nbdinfo", "--list", "--json", server.uri("", tcp)))
        exports = {each["export-name"]: each for each in listed["exports"]}
        assert sorted(exports) == ["first", "second"]
        assert exports["first"]["export-size"] == 16 * MIB
        assert not exports["first"]["is_read_only"]
        assert exports["second"]["export-size"] == 3 * MIB + 777
        assert exports["second"]["is_read_only"]
        assert "first" in must(world, "nbdinfo", "--list", server.uri("", tcp))


def test_nbdinfo_shows_the_description(world):
    with world.server(f"d={sparse_disk(world)},description=the first one") as server:
        told = json.loads(must(world, "nbdinfo", "--json", server.uri("d")))
        assert told["exports"][0]["description"] == "the first one"


def test_nbdinfo_list_shows_the_description(world):
    # Of a list, nbdinfo shows what came with NBD_OPT_LIST itself.
    with world.server(f"d={sparse_disk(world)},description=the first one") as server:
        listed = json.loads(must(world, "nbdinfo", "--list", "--json", server.uri()))
        assert listed["exports"][0].get("description") == "the first one"


@TRANSPORTS
def test_nbdinfo_is_told_what_the_server_can(world, tcp):
    with world.server(f"d={sparse_disk(world)}") as server:
        uri = server.uri("d", tcp)
        told = json.loads(must(world, "nbdinfo", "--json", uri))
        assert told["protocol"] == "newstyle-fixed" and told["structured"]
        export = told["exports"][0]
        for ability in ("can_cache", "can_df", "can_fast_zero", "can_flush", "can_fua",
                        "can_multi_conn", "can_trim", "can_zero"):
            assert export[ability], ability
        assert export["contexts"] == ["base:allocation"]
        assert must(world, "nbdinfo", "--size", uri).strip() == str(16 * MIB)
        assert run(world, "nbdinfo", "--is", "read-only", uri).returncode == 2


@pytest.mark.parametrize("ability", ["trim", "zero", "fast-zero"])
def test_nbdinfo_is_told_that_a_read_only_export_takes_no(world, ability):
    with world.server(f"d={sparse_disk(world)},ro") as server:
        must(world, "nbdinfo", "--is", "read-only", server.uri("d"))
        assert run(world, "nbdinfo", "--can", ability, server.uri("d")).returncode == 2


def test_nbdinfo_is_refused_an_unknown_export(world):
    with world.server(f"d={sparse_disk(world)}") as server:
        assert run(world, "nbdinfo", server.uri("nothing")).returncode == 1
        wait_for(lambda: "asked for export 'nothing'" in server.messages())
        must(world, "nbdinfo", server.uri("d"))


@TRANSPORTS
def test_nbdinfo_map_is_the_map_of_the_file(world, tcp):
    disk = sparse_disk(world)
    with world.server(f"d={disk}") as server:
        extents = json.loads(must(world, "nbdinfo", "--map", "--json", server.uri("d", tcp)))
    data = [(each["offset"], each["length"]) for each in extents if each["type"] == 0]
    assert data == data_ranges(disk)
    assert all(each["type"] in (0, 3) for each in extents)
    assert sum(each["length"] for each in extents) == 16 * MIB


def test_nbdinfo_map_totals_add_up_on_a_disk_in_ten_thousand_pieces(world):
    disk = make_disk(world.path("disk"), 20_000 * 4 * KIB,
                     [(n * 8 * KIB, 4 * KIB) for n in range(10_000)])
    with world.server(f"d={disk}") as server:
        extents = json.loads(must(world, "nbdinfo", "--map", "--json", server.uri("d")))
    data = [(each["offset"], each["length"]) for each in extents if each["type"] == 0]
    assert data == data_ranges(disk)


def test_nbdinfo_maps_a_disk_larger_than_a_32_bit_length(world):
    disk = make_disk(world.path("disk"), 20 << 30, [(9 << 30, MIB)])
    with world.server(f"d={disk}") as server:
        extents = json.loads(must(world, "nbdinfo", "--map", "--json", server.uri("d")))
        assert [(e["offset"], e["length"]) for e in extents if e["type"] == 0] == [(9 << 30, MIB)]
        assert extents[-1]["offset"] + extents[-1]["length"] == 20 << 30


# --- nbdcopy ---

@pytest.mark.parametrize("size", SIZES)
@TRANSPORTS
def test_nbdcopy_from_a_file_arrives_exactly(world, size, tcp):
    source = make_disk(world.path("source"), size, [(0, size)])
    target = make_disk(world.path("target"), size, [(0, size)], seed=2)
    with world.server(f"d={target}") as server:
        must(world, "nbdcopy", "--flush", source, server.uri("d", tcp))
        assert same_content(source, target)
    assert os.path.getsize(target) == size


@pytest.mark.parametrize("size", SIZES)
@TRANSPORTS
def test_nbdcopy_to_a_file_arrives_exactly(world, size, tcp):
    source = make_disk(world.path("source"), size, [(0, size)])
    with world.server(f"d={source},ro") as server:
        must(world, "nbdcopy", server.uri("d", tcp), world.path("target"))
    assert same_content(source, world.path("target"))


@pytest.mark.parametrize("options", [(), ("--allocated",), ("--connections=4", "--requests=64"),
                                     ("--synchronous",), ("--request-size=33554432",),
                                     ("--no-extents",)],
                         ids=lambda each: "".join(each) or "default")
@TRANSPORTS
def test_nbdcopy_between_two_of_our_servers_replaces_old_data(world, options, tcp):
    source = sparse_disk(world, "source")
    target = make_disk(world.path("target"), 16 * MIB, [(0, 16 * MIB)], seed=2)
    with world.server(f"d={source},ro") as left, world.server(f"d={target}") as right:
        must(world, "nbdcopy", *options, left.uri("d", tcp), right.uri("d", tcp))
    assert same_content(source, target)


def test_nbdcopy_of_a_sparse_disk_leaves_a_sparse_disk(world):
    source = sparse_disk(world, "source", 64 * MIB)
    target = make_disk(world.path("target"), 64 * MIB, [(0, 64 * MIB)], seed=2)
    with world.server(f"d={source},ro") as left, world.server(f"d={target}") as right:
        must(world, "nbdcopy", left.uri("d"), right.uri("d"))
    assert same_content(source, target)
    assert allocated_bytes(target) <= allocated_bytes(source) + 64 * KIB


def test_nbdcopy_onto_a_read_only_export_fails_and_changes_nothing(world):
    source, target = sparse_disk(world, "source"), sparse_disk(world, "target", seed=2)
    before = target.read_bytes()
    with world.server(f"d={target},ro") as server:
        assert run(world, "nbdcopy", source, server.uri("d")).returncode != 0
    assert target.read_bytes() == before


# --- nbd-client ---

def test_nbd_client_lists_the_exports(world):
    with world.server(f"first={sparse_disk(world)}", f"second={sparse_disk(world, 'b')},ro") as server:
        listed = must(world, "nbd-client", "-l", "127.0.0.1", server.port)
        assert {"first", "second"} <= set(listed.split())


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/sys/block/nbd0"),
                    reason="needs root and the kernel's nbd (modprobe nbd)")
def test_the_kernels_block_device_is_the_disk(world):
    disk, device = sparse_disk(world), "/dev/nbd0"
    with world.server(f"d={disk}") as server:
        must(world, "nbd-client", "-N", "d", "-u", server.socket, device)
        try:
            assert int(must(world, "blockdev", "--getsize64", device)) == 16 * MIB
            assert same_content(device, disk)
            with open(device, "r+b", buffering=0) as block:
                block.seek(2 * MIB)
                block.write(b"x" * MIB)
                os.fsync(block.fileno())
        finally:
            must(world, "nbd-client", "-d", device)
        with open(disk, "rb") as file:
            file.seek(2 * MIB)
            assert file.read(MIB) == b"x" * MIB


# --- qemu-img ---

@TRANSPORTS
def test_qemu_img_info_reports_the_size(world, tcp):
    with world.server(f"d={sparse_disk(world)}") as server:
        told = json.loads(must(world, "qemu-img", "info", "--output=json", server.uri("d", tcp)))
        assert told["virtual-size"] == 16 * MIB and told["format"] == "raw"


@pytest.mark.parametrize("size", SECTOR_SIZES)
@TRANSPORTS
def test_qemu_img_convert_to_our_server_arrives_exactly(world, size, tcp):
    source = make_disk(world.path("source"), size, [(0, size // 2)])
    target = make_disk(world.path("target"), size, [(0, size)], seed=2)
    with world.server(f"d={target}") as server:
        must(world, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source,
             server.uri("d", tcp))
    assert same_content(source, target)
    assert os.path.getsize(target) == size


@pytest.mark.parametrize("size", SECTOR_SIZES)
@TRANSPORTS
def test_qemu_img_convert_from_our_server_arrives_exactly(world, size, tcp):
    source = make_disk(world.path("source"), size, [(0, size // 2)])
    with world.server(f"d={source},ro") as server:
        must(world, "qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri("d", tcp),
             world.path("target"))
    assert same_content(source, world.path("target"))


@TRANSPORTS
def test_qcow2_image_goes_through_our_server_and_comes_back(world, tcp):
    source = sparse_disk(world, "source")
    must(world, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, world.path("a.qcow2"))
    target = make_disk(world.path("target"), 16 * MIB, [(0, 16 * MIB)], seed=2)
    with world.server(f"d={target}") as server:
        must(world, "qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "qcow2", "-O", "raw",
             world.path("a.qcow2"), server.uri("d", tcp))
        must(world, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri("d", tcp),
             world.path("b.qcow2"))
        must(world, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", world.path("b.qcow2"),
             server.uri("d", tcp))
    assert same_content(source, target)


@TRANSPORTS
def test_qemu_img_compare_sees_one_different_byte(world, tcp):
    source, target = sparse_disk(world, "source"), sparse_disk(world, "target")
    with world.server(f"d={target}") as server:
        uri = server.uri("d", tcp)
        must(world, "qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri)
        with open(target, "r+b") as disk:
            disk.seek(9 * MIB + 123)
            disk.write(b"!")
        result = run(world, "qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri)
        assert result.returncode == 1 and "mismatch at offset 9437184" in result.stdout


def test_qemu_img_map_is_the_map_of_the_file(world):
    disk = sparse_disk(world)
    with world.server(f"d={disk}") as server:
        extents = json.loads(must(world, "qemu-img", "map", "--output=json", "-f", "raw",
                                  server.uri("d")))
    data = [(each["start"], each["length"]) for each in extents if not each["zero"]]
    assert data == data_ranges(disk)


# --- qemu-io ---

def qemu_io(world, uri, *commands):
    arguments = [part for each in commands for part in ("-c", each)]
    output = must(world, "qemu-io", "-f", "raw", *arguments, uri)
    assert "failed" not in output.lower(), output
    return output


@TRANSPORTS
def test_qemu_io_reads_back_what_it_wrote_and_zeroed(world, tcp):
    disk = sparse_disk(world)
    with world.server(f"d={disk}") as server:
        qemu_io(world, server.uri("d", tcp),
                "write -P 0x5a 1M 256k", "read -P 0x5a 1M 256k",
                "write -f -P 0x5b 2M 64k", "read -P 0x5b 2M 64k",
                "write -z 1M 64k", "read -P 0 1M 64k", "read -P 0x5a 1088k 192k",
                "write -z -u 2M 64k", "read -P 0 2M 64k",
                "flush", "read -P 0 3M 1M")
    expected = bytearray(sparse_disk(world, "expected").read_bytes())
    expected[MIB + 64 * KIB:MIB + 256 * KIB] = b"\x5a" * (192 * KIB)
    assert disk.read_bytes() == bytes(expected)


@TRANSPORTS
def test_qemu_io_unaligned_requests_touch_no_neighbour(world, tcp):
    disk = make_disk(world.path("disk"), MIB, [(0, MIB)])
    expected = bytearray(disk.read_bytes())
    with world.server(f"d={disk}") as server:
        commands = []
        for number, (offset, length) in enumerate([(513, 1023), (1, 1), (4095, 2), (65535, 8193),
                                                   (100_001, 99_999), (MIB - 3, 3)], 1):
            commands += [f"write -P {number} {offset} {length}",
                         f"read -P {number} {offset} {length}"]
            expected[offset:offset + length] = bytes([number]) * length
        for offset, length in [(7, 501), (300_001, 65_537)]:
            commands += [f"write -z {offset} {length}", f"read -P 0 {offset} {length}"]
            expected[offset:offset + length] = bytes(length)
        qemu_io(world, server.uri("d", tcp), *commands)
    assert disk.read_bytes() == bytes(expected)


def test_qemu_io_discard_gives_space_back_and_keeps_the_rest(world):
    disk = make_disk(world.path("disk"), 8 * MIB, [(0, 8 * MIB)])
    before = disk.read_bytes()
    with world.server(f"d={disk}") as server:
        full = allocated_bytes(disk)
        must(world, "qemu-io", "-f", "raw", "--discard=unmap", "-c", "discard 2M 4M",
             server.uri("d"))
        assert allocated_bytes(disk) <= full - 4 * MIB + 64 * KIB
    assert disk.read_bytes() == before[:2 * MIB] + bytes(4 * MIB) + before[6 * MIB:]


def test_qemu_io_discard_with_ragged_ends_keeps_the_neighbours(world):
    disk = make_disk(world.path("disk"), MIB, [(0, MIB)])
    before = disk.read_bytes()
    with world.server(f"d={disk}") as server:
        must(world, "qemu-io", "-f", "raw", "--discard=unmap", "-c", "discard 1001 100003",
             server.uri("d"))
    after = disk.read_bytes()
    assert after[:1001] == before[:1001] and after[101_004:] == before[101_004:]


def test_qemu_io_may_have_many_requests_under_way(world):
    disk = make_disk(world.path("disk"), 16 * MIB)
    with world.server(f"d={disk}") as server:
        qemu_io(world, server.uri("d"),
                *(f"aio_write -q -P {n + 1} {n * 64}k 64k" for n in range(200)), "aio_flush",
                *(f"read -P {n + 1} {n * 64}k 64k" for n in range(200)))


def test_qemu_io_cannot_write_to_a_read_only_export(world):
    disk = sparse_disk(world)
    before = disk.read_bytes()
    with world.server(f"d={disk},ro") as server:
        result = run(world, "qemu-io", "-f", "raw", "-c", "write 0 64k", server.uri("d"))
        assert result.returncode != 0
        must(world, "qemu-io", "-r", "-f", "raw", "-c", "read 0 64k", server.uri("d"))
    assert disk.read_bytes() == before


# --- fio ---

def fio(world, uri, *options, jobs=()):
    must(world, "fio", "--ioengine=nbd", f"--uri={uri}", "--randseed=7", "--verify_fatal=1",
         "--verify=crc32c", *options, *jobs, limit=180)


@pytest.mark.parametrize("pattern", ["write", "randwrite", "randrw"])
@TRANSPORTS
def test_fio_finds_what_it_wrote(world, pattern, tcp):
    disk = make_disk(world.path("disk"), 32 * MIB)
    with world.server(f"d={disk}") as server:
        fio(world, server.uri("d", tcp), "--name=verify", f"--rw={pattern}", "--bs=4k",
            "--iodepth=32", "--size=32m")


@TRANSPORTS
def test_fio_finds_what_it_wrote_in_blocks_of_every_size(world, tcp):
    disk = make_disk(world.path("disk"), 32 * MIB)
    with world.server(f"d={disk}") as server:
        fio(world, server.uri("d", tcp), "--name=verify", "--rw=randwrite", "--bsrange=512-256k",
            "--iodepth=16", "--size=32m", "--verify_backlog=64")


@pytest.mark.parametrize("blocks", ["512-64k", "4k-64k"])
def test_fio_finds_what_it_wrote_without_the_page_cache(world, blocks):
    # Blocks that begin and end anywhere, and many connections beside each other.
    disk = make_disk(world.path("disk"), 16 * MIB + 777)
    with world.server(f"d={disk},cache=direct") as server:
        fio(world, server.uri("d"), "--name=verify", "--rw=randwrite", f"--bsrange={blocks}",
            "--bs_unaligned", "--iodepth=8", "--size=4m", "--numjobs=4", "--offset_increment=4m",
            "--thread", "--verify_backlog=64")


def test_unaligned_writes_without_the_page_cache_do_not_undo_their_neighbours(world, nbd):
    # Eight connections write the stretches of 100 bytes that share blocks with each other's.
    step, rounds = 100, 300
    disk = make_disk(world.path("disk"), MIB + 7)
    with world.server(f"d={disk},cache=direct") as server:
        handles = [nbd.NBD() for _ in range(8)]
        for handle in handles:
            handle.connect_uri(server.uri("d"))

        def write(number):
            for i in range(rounds):
                handles[number].pwrite(bytes([number + 1]) * step, (8 * i + number) * step)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        handles[0].pwrite(b"the end", MIB)
        for handle in handles:
            handle.shutdown()
    content = disk.read_bytes()
    assert content[:8 * rounds * step] == b"".join(bytes([n + 1]) * step for n in range(8)) * rounds
    assert content[MIB:] == b"the end"


def test_fio_finds_what_four_connections_wrote_side_by_side(world):
    disk = make_disk(world.path("disk"), 64 * MIB)
    with world.server(f"d={disk}") as server:
        fio(world, server.uri("d"), "--name=verify", "--rw=randwrite", "--bs=16k", "--iodepth=16",
            "--size=16m", "--numjobs=4", "--offset_increment=16m", "--thread")


def test_fio_finds_what_it_wrote_with_trims_in_between(world):
    disk = make_disk(world.path("disk"), 32 * MIB)
    with world.server(f"d={disk}") as server:
        fio(world, server.uri("d"), "--name=verify", "--rw=randwrite", "--bs=8k", "--iodepth=16",
            "--size=32m", "--fsync=50")
        must(world, "fio", "--ioengine=nbd", f"--uri={server.uri('d')}", "--name=trim",
             "--rw=randtrim", "--bs=64k", "--iodepth=16", "--size=32m")
        assert allocated_bytes(disk) <= MIB


# --- libnbd ---

def test_flush_on_one_connection_follows_a_write_on_another(world, nbd):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        writer, reader = nbd.NBD(), nbd.NBD()
        for each in (writer, reader):
            each.connect_uri(server.uri("d"))
            assert each.can_multi_conn()
        for number in range(100):
            data = random.Random(number).randbytes(5000)
            writer.pwrite(data, number * 5000)
            reader.flush()
            assert reader.pread(5000, number * 5000) == data
        writer.shutdown()
        reader.shutdown()


def unsaved_pages(path):
    """Pages of a file that are in memory only; nothing where the kernel or file system (tmpfs
    never saves) cannot tell."""
    cachestat = 451  # Linux 6.5
    counts = (ctypes.c_uint64 * 5)()  # cached, dirty, under write-back, evicted, recently evicted
    everything = (ctypes.c_uint64 * 2)(0, 0)
    with open(path, "rb") as file:
        if ctypes.CDLL(None, use_errno=True).syscall(
                cachestat, file.fileno(), everything, counts, 0) != 0:
            return None
    return counts[1] + counts[2]


@pytest.mark.parametrize("flusher", [0, 7])
def test_flush_on_any_of_eight_connections_saves_what_all_have_written(world, nbd, flusher):
    disk = make_disk(world.path("disk"), 64 * MIB)
    with world.server(f"d={disk}") as server:
        handles = [nbd.NBD() for _ in range(8)]
        for handle in handles:
            handle.connect_uri(server.uri("d"))
        data = [random.Random(number).randbytes(64 * KIB) for number in range(8)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            # Side by side and interleaved: each 64 KiB of the disk has another writer.
            list(pool.map(lambda n: [handles[n].pwrite(data[n], (8 * i + n) * 64 * KIB)
                                     for i in range(100)], range(8)))
        before = unsaved_pages(disk)
        handles[flusher].flush()
        after = unsaved_pages(disk)
        for handle in handles:
            handle.shutdown()
    assert disk.read_bytes()[:8 * 100 * 64 * KIB] == b"".join(data) * 100
    if not before:
        pytest.skip("what is saved cannot be asked for here")
    assert after == 0


def test_libnbd_sees_the_same_bytes_with_and_without_structured_replies(world, nbd):
    disk = sparse_disk(world)
    with world.server(f"d={disk}") as server:
        answers = []
        for structured in (True, False):
            handle = nbd.NBD()
            handle.set_request_structured_replies(structured)
            handle.connect_uri(server.uri("d"))
            assert handle.get_structured_replies_negotiated() == structured
            answers.append([handle.pread(length, offset) for offset, length in
                            [(0, 16 * MIB), (60 * KIB + 1, 10 * KIB), (5 * MIB - 7, MIB + 99)]])
            handle.shutdown()
    assert answers[0] == answers[1]
    assert answers[0][0] == disk.read_bytes()


def test_clients_that_left_leave_no_thread(world):
    need("nbdinfo")
    with world.server(f"d={sparse_disk(world)}") as server:
        before = len(server.cpu_threads())
        for _ in range(10):
            must(world, "nbdinfo", server.uri("d"))
        wait_for(lambda: len(server.cpu_threads()) == before, what="the threads' end")
