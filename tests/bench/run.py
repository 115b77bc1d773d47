#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures nbd-mirror end to end and prints what it saw; judges nothing.

  run.py copy     a file of random data to a server, five ways: nbd-mirror copy and nbdcopy, each to
                  nbd-mirror-server and to nbdkit's file plugin, and qemu-img convert to qemu-nbd.
                  Wall time, and CPU of both ends. About a minute. --tcp: over loopback instead of a
                  Unix socket. --direct: nbd-mirror-server without the page cache, and all clients
                  flush at the end, for a --directory on a disk.
  run.py sparse   nbd-mirror copy to nbd-mirror-server, the same data in 100 GiB, 500 GiB and 10 TiB
                  of disk: whether time grows with the size. Half a minute.
  run.py verify   a file and its copy compared by nbd-mirror verify, the copy as a file, behind
                  nbd-mirror-server, which makes digests of it, and behind nbdkit's file plugin,
                  from which all of it is read; beside qemu-img compare and cmp of the two files,
                  and nbdcopy that reads nbdkit's alone. Over a Unix socket. A minute.
  run.py mirror   a disk under fio's random writes, moved by nbd-mirror mirror from one
                  nbd-mirror-server to another again and again: downtime, and whether the copy is
                  identical. Half a minute each time.
  run.py resume   the same with a sparse disk of four times its data, and a mirror that is killed at
                  random moments --kills times and resumed: bytes sent beside data and what was
                  written meanwhile. A minute each time.

Programs take turns, in another order each time; medians of --rounds are printed. Machines are
noisy: only ratios within one run mean something. Disks are on tmpfs; the times are those of two
cores, with the defaults.
"""

import contextlib
import functools
import os
import random
import re
import shutil
import statistics
import time

from measure import (Failed, Parser, add_directory, add_number, cpu_seconds, free_port, have_memory,
                     nbdkit, need_built, need_fio, need_installed, need_room, ours, qemu_nbd,
                     random_file, run, run_benchmark, serving, undivided, uri, workspace)
from harness import (CLIENT, GIB, MIB, SERVER, allocated_bytes, fio_writer, make_disk, same_content,
                     wait_for)

# The data of a sparse disk is in so many pieces, of whole MiB.
PIECES = 24
SPARSE_GIB = 100, 500, 10 << 10
# A mirror that is killed again and again copies for so long, at a limit.
SECONDS_OF_KILLS = 20


class Peer:
    """A server, if any, with a client: what is measured."""

    def __init__(self, name, server, client):
        self.name, self.server, self.client = name, server, client
        self.wall, self.server_cpu, self.client_cpu = [], [], []

    def copy(self, world, source, size, tcp=False):
        """To a new file, which it returns."""
        target = world.path("target")
        target.unlink(missing_ok=True)
        have_memory(world, min(size, allocated_bytes(source)))
        self.run(world, source, make_disk(target, size), tcp)
        return target

    def run(self, world, source, target, tcp=False):
        where = free_port() if tcp else world.path("bench.sock")
        with (serving(world, self.server(target, where), where) if self.server
              else contextlib.nullcontext()) as server:
            before, begin = os.times(), time.monotonic()
            run(self.client(source, uri(where) if server else target), env=world.env)
            self.wall.append(time.monotonic() - begin)
            after = os.times()
            self.client_cpu.append(after.children_user - before.children_user +
                                   after.children_system - before.children_system)
            self.server_cpu.append(cpu_seconds(server.pid) if server else 0)

    def line(self, data_gib):
        return (f"{self.name:36} {statistics.median(self.wall):7.2f} s "
                f"{statistics.median(self.server_cpu) / data_gib:8.2f} "
                f"{statistics.median(self.client_cpu) / data_gib:8.2f}")


def print_table(what, peers, size):
    """Peers that have read or written `size` bytes of random data: their median wall times."""
    print(f"{f'{what} of {size // MIB} MiB, random':36}      wall  server CPU-s/GiB  client")
    for peer in peers:
        print(peer.line(size / GIB))
    return [statistics.median(peer.wall) for peer in peers]


# It flushes at the end, always.
def our_copy(source, target):
    return [CLIENT, "copy", source, target, "--progress", "none"]


def nbdcopy(source, target):
    return ["nbdcopy", source, target]


def nbdcopy_flush(source, target):
    return ["nbdcopy", "--flush", source, target]


# Without a cache mode it does not flush.
def qemu_img(source, target, *options):
    return ["qemu-img", "convert", "-n", "-W", "-m", "16", *options, "-f", "raw", "-O", "raw",
            source, target]


def qemu_img_flush(source, target):
    return qemu_img(source, target, "-t", "writeback")


def bench_copy(options):
    size = options.mib * MIB
    need_installed("nbdkit", "nbdcopy", "qemu-nbd", "qemu-img")
    need_room(options.directory, 2 * size)
    our_server = functools.partial(ours, direct=options.direct)
    nbd_copy = nbdcopy_flush if options.direct else nbdcopy
    qemu_copy = qemu_img_flush if options.direct else qemu_img
    with workspace(options.directory) as world:
        source = random_file(world.path("source"), size)
        os.sync()  # or it is written out while the first copies are
        peers = [Peer("nbd-mirror-server <- nbd-mirror copy", our_server, our_copy),
                 Peer("nbdkit file <- nbdcopy", nbdkit, nbd_copy),
                 Peer("nbd-mirror-server <- nbdcopy", our_server, nbd_copy),
                 Peer("nbdkit file <- nbd-mirror copy", nbdkit, our_copy),
                 Peer("qemu-nbd <- qemu-img convert", qemu_nbd, qemu_copy)]
        for _ in range(options.rounds):
            # Each of them leaves the machine in another state.
            for peer in random.sample(peers, len(peers)):
                target = peer.copy(world, source, size, options.tcp)
        if not same_content(source, target):
            raise Failed(f"{peer.name}: the copy is not what was copied")
    wall = print_table("copy", peers, size)
    cpu = statistics.median(peers[2].server_cpu) / statistics.median(peers[1].server_cpu)
    print(f"wall, ours end to end / nbdcopy to nbdkit: {wall[0] / wall[1]:.2f}")
    print(f"wall, ours end to end / qemu-img to qemu-nbd: {wall[0] / wall[4]:.2f}")
    print(f"server CPU, ours / nbdkit (nbdcopy as client): {cpu:.2f}")


def bench_sparse(options):
    size, where = options.mib * MIB, options.directory
    part = size * 3 // 4 // PIECES // MIB * MIB
    if part == 0:
        raise Failed(f"--mib {size // MIB} is too small: each of {PIECES} pieces has at least a MiB "
                     f"of three quarters of it, {PIECES * 4 // 3} MiB are the least")
    need_room(where, (len(SPARSE_GIB) + 1) * PIECES * part)
    with workspace(where) as world:
        sources = {}
        for gib in SPARSE_GIB:
            pieces = [(i * gib * GIB // PIECES, part) for i in range(PIECES)]
            sources[gib] = make_disk(world.path(f"source{gib}"), gib * GIB, pieces)
        peers = {gib: Peer(f"{gib} GiB with {PIECES * part // MIB} MiB of data", ours, our_copy)
                 for gib in sources}
        for _ in range(options.rounds):
            for gib, peer in random.sample(list(peers.items()), len(peers)):
                target = peer.copy(world, sources[gib], gib * GIB)
                growth = allocated_bytes(target) / allocated_bytes(sources[gib])
                if growth > 1.01:
                    raise Failed(f"{peer.name}: the target has {growth:.2f} times its blocks")
    for peer in peers.values():
        print(peer.line(PIECES * part / GIB))
    wall = {gib: statistics.median(peer.wall) for gib, peer in peers.items()}
    for gib in SPARSE_GIB[1:]:
        print(f"{gib} GiB / {SPARSE_GIB[0]} GiB: {wall[gib] / wall[SPARSE_GIB[0]]:.2f}")
    print(f"blocks at the target / at the source: {growth:.4f}")


def our_verify(source, target):
    return [CLIENT, "verify", source, target, "--progress", "none"]


def read_target(_, target):
    return nbdcopy(target, "null:")


def qemu_img_compare(source, target):
    return ["qemu-img", "compare", "-f", "raw", "-F", "raw", source, target]


def cmp(source, target):
    return ["cmp", source, target]


def bench_verify(options):
    size = options.mib * MIB
    need_installed("nbdkit", "nbdcopy", "qemu-img", "cmp")
    need_room(options.directory, 2 * size)
    mine = [Peer("nbd-mirror verify, two files", None, our_verify),
            Peer("nbd-mirror verify, nbd-mirror-server", ours, our_verify),
            Peer("nbd-mirror verify, nbdkit file", nbdkit, our_verify)]
    others = [Peer("nbdcopy to null:, nbdkit file", nbdkit, read_target),
              Peer("qemu-img compare, two files", None, qemu_img_compare),
              Peer("cmp, two files", None, cmp)]
    with workspace(options.directory) as world:
        source = random_file(world.path("source"), size)
        target = shutil.copyfile(source, world.path("target"))
        os.sync()  # or it is written out while the first are compared
        for _ in range(options.rounds):
            for peer in mine + others:
                peer.run(world, source, target)
    wall = print_table("verify", mine + others, size)
    for peer, its_wall in zip(mine, wall):
        ratios = (f"{its_wall / other_wall:.2f} {other.name.split(',')[0]}"
                  for other, other_wall in zip(others, wall[len(mine):]))
        print(f"wall, {peer.name} / others: {', '.join(ratios)}")


def move(world, size, seed):
    """Moves a disk once, under a writer: the downtime in milliseconds."""
    source = random_file(world.path("source"), size)
    target = make_disk(world.path("target"), size)
    with undivided(lambda: world.server(f"d={source}")) as a, \
            undivided(lambda: world.server(f"d={target}")) as b, \
            undivided(lambda: fio_writer(world, a.uri("d"), seconds=300, size=size,
                                         seed=seed)) as fio:
        wait_for(lambda: a.export("d")["written_bytes"] > 0 or not fio.running())
        begin = time.monotonic()
        with undivided(lambda: world.mirror(a.source("d"), b.uri("d"), "--max-downtime",
                                            "500")) as mirror:
            mirror.wait_for_phase("ready", limit=120)
            ready = time.monotonic() - begin
            time.sleep(10)  # it has to stay ready for ten seconds
            phase, running = mirror.phase(), fio.running()
            result = mirror.cutover()
            if result.returncode != 0:
                raise Failed(f"seed {seed}: {result.stderr.strip()}")
            mirror.wait()
        fio.wait()
    errors = set(re.findall(r"io_u error on file \S+ ([^:]*)", fio.messages() + fio.output))
    equal = same_content(source, target)
    print(f"seed {seed}: ready after {ready:.1f} s, then {phase}, {result.stdout.strip()}, "
          f"identical: {equal}, writer until then: {'well' if running else 'ended'}, "
          f"after it: {', '.join(errors)}", flush=True)
    if not (equal and running and errors == {"Cannot send after transport endpoint shutdown"}):
        raise Failed(f"seed {seed}: the disk has not moved as it should")
    return int(re.search(r"(\d+) ms", result.stdout).group(1))


def bench_mirror(options):
    size, rounds = options.mib * MIB, options.rounds
    need_fio()
    need_room(options.directory, 2 * size)
    downtimes = []
    for seed in range(1, rounds + 1):
        with workspace(options.directory) as world:
            downtimes.append(move(world, size, seed))
    print(f"{rounds} moves; downtime median {statistics.median(downtimes)} ms, "
          f"longest {max(downtimes)} ms")


def move_and_kill(world, size, kills, seed):
    """Moves a disk once, by mirrors that are killed: (bytes of data, written meanwhile, sent)."""
    source, target = world.path("source"), world.path("target")
    part = size // PIECES // MIB * MIB
    make_disk(source, 4 * size, [(i * 4 * size // PIECES, part) for i in range(PIECES)])
    make_disk(target, 4 * size)
    data = allocated_bytes(source)
    moments = random.Random(seed)
    limit = ["--bwlimit", str(max(size // SECONDS_OF_KILLS, MIB))]
    with undivided(lambda: world.server(f"d={source}")) as a, \
            undivided(lambda: world.server(f"d={target}")) as b, \
            undivided(lambda: fio_writer(world, a.uri("d"), seconds=600, size=part, rate="2m",
                                         seed=seed)) as fio:
        wait_for(lambda: a.export("d")["written_bytes"] > 0 or not fio.running())
        before = a.export("d")["written_bytes"]
        sides = [a.source("d"), b.uri("d")]
        for kill in range(kills):
            with undivided(lambda: world.mirror(*(sides if kill == 0 else (None, None)), *limit,
                                                *(["--resume"] if kill else []))) as mirror:
                mirror.wait_for_phase("copying", "catching_up", "ready")
                time.sleep(moments.uniform(0, 2 * SECONDS_OF_KILLS / kills))
                mirror.kill()
        with undivided(lambda: world.mirror(None, None, "--resume", "--cutover", "auto")) as mirror:
            mirror.wait()
        fio.wait()
        if not same_content(source, target):
            raise Failed(f"seed {seed}: the copy is not identical")
        return data, a.export("d")["written_bytes"] - before, b.export("d")["written_bytes"]


def bench_resume(options):
    need_fio()
    need_room(options.directory, 2 * options.mib * MIB)
    for seed in range(1, options.rounds + 1):
        with workspace(options.directory) as world:
            data, written, sent = move_and_kill(world, options.mib * MIB, options.kills, seed)
        print(f"{data / GIB:.2f} GiB of data, {options.kills} kills: {written / GIB:.2f} GiB written "
              f"meanwhile, {sent / GIB:.2f} GiB sent, {(sent - written) / data:.3f} of the data "
              "without what was written", flush=True)


def main():
    works = {"copy": bench_copy, "sparse": bench_sparse, "verify": bench_verify,
             "mirror": bench_mirror, "resume": bench_resume}
    parser = Parser(__doc__)
    parser.add_argument("what", choices=works)
    add_number(parser, "--rounds", 5, "how often each is measured, or the disk is moved")
    add_number(parser, "--mib", 2048, "size of the disk, or of its data")
    add_directory(parser, "--directory", "/dev/shm", "where the disks are")
    add_number(parser, "--kills", 20, "resume: how often the mirror is killed")
    parser.add_argument("--tcp", action="store_true", help="copy: over TCP")
    parser.add_argument("--direct", action="store_true", help="copy: to storage, not to its cache")
    options = parser.parse_args()
    need_built(SERVER, CLIENT)
    works[options.what](options)


if __name__ == "__main__":
    run_benchmark(main)
