#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures nbd-mirror-server beside nbdkit's file plugin and qemu-nbd (--aio=io_uring) and prints
the table of docs/performance.md; judges nothing.

WORK is one or more of these, all when none is given:
  write-tmpfs    nbdcopy to a new file on tmpfs
  rewrite-tmpfs  nbdcopy to a file on tmpfs that has all its memory: what is left is the server
  write-direct   nbdcopy --flush to a new file on a disk, ours and qemu-nbd without the page cache
  read           nbdcopy from a file on tmpfs to nowhere
  small-read     fio, 4 KiB at random, depth 32, 4 connections
  small-write    the same
  floor          as rewrite-tmpfs, beside a bare thread that receives and writes
                 (tests/bench/floor.cpp), from a sender with a socket buffer like nbdcopy's, and
                 from one with the largest there is

Servers take turns in each round, another first each time, after a round that is not counted; what
is printed are medians and, behind them, ours divided by the peer's. Machines are noisy: only ratios
within one run mean something. All of it takes about eight minutes with the defaults, on two cores.
"""

import statistics
import time

from measure import (Parser, add_directory, add_number, cpu_seconds, fio, nbdkit,
                     need_built, need_fio, need_installed, need_room, ours, p99_us, qemu_nbd,
                     random_file, run, run_benchmark, serving, started, workspace)
from harness import BUILD, GIB, MIB, SERVER, make_disk, wait_for

CONNECTIONS, DEPTH = 4, 32
FLOOR = BUILD / "tests/bench/floor"
# What stands in the peers' places when the floor is measured, as the senders are called there.
FLOORS = {"nbdkit": "send", "qemu-nbd": "send-wide"}


def qemu_nbd_in_ring(target, sock, direct):
    return qemu_nbd(target, sock, "--aio=io_uring", f"--cache={'none' if direct else 'writeback'}")


SERVERS = {"nbd-mirror-server": ours, "nbdkit": lambda target, sock, _: nbdkit(target, sock),
           "qemu-nbd": qemu_nbd_in_ring}


class Bench:
    """The works that can be measured, by their names."""

    def __init__(self, memory, disk, size, seconds):
        self.memory, self.disk, self.size, self.seconds = memory, disk, size, seconds
        self.source = random_file(memory.path("source"), size)

    def serve(self, server, target, work, direct=False):
        """`work(uri)` while `server` serves `target`: (its result, the server's CPU seconds)."""
        sock = self.memory.path("bench.sock")
        with serving(self.memory, SERVERS[server](target, sock, direct), sock) as process:
            before = cpu_seconds(process.pid)
            result = work(f"nbd+unix:///?socket={sock}")
            return result, cpu_seconds(process.pid) - before

    def fresh(self, world):
        target = world.path("target")
        target.unlink(missing_ok=True)
        return make_disk(target, self.size)

    def full(self, world):
        """The target with all its memory, as the last copy has left it."""
        target = world.path("target")
        if not target.exists() or target.stat().st_blocks * 512 < self.size:
            random_file(target, self.size)
        return target

    def timed(self, arguments):
        begin = time.monotonic()
        run(arguments)
        return time.monotonic() - begin

    def bulk(self, server, target, arguments, direct=False):
        wall, cpu = self.serve(server, target, lambda uri: self.timed(
            [uri if each == "URI" else each for each in arguments]), direct)
        return {"CPU-s/GiB": cpu / (self.size / GIB), "wall s": wall}

    def write_tmpfs(self, server):
        return self.bulk(server, self.fresh(self.memory), ["nbdcopy", self.source, "URI"])

    def rewrite_tmpfs(self, server):
        return self.bulk(server, self.full(self.memory), ["nbdcopy", self.source, "URI"])

    def write_direct(self, server):
        return self.bulk(server, self.fresh(self.disk), ["nbdcopy", "--flush", self.source, "URI"],
                         direct=True)

    def read(self, server):
        return self.bulk(server, self.source, ["nbdcopy", "URI", "null:"])

    def small(self, server, kind):
        seen, cpu = self.serve(server, self.source, lambda uri: fio(
            self.memory, uri, kind, bs="4k", iodepth=DEPTH, numjobs=CONNECTIONS, size=self.size,
            runtime=self.seconds, randrepeat=0))
        return {"CPU us/request": 1e6 * cpu / seen["total_ios"], "IOPS": seen["iops"],
                "p99 us": p99_us(seen)}

    def small_read(self, server):
        return self.small(server, "read")

    def small_write(self, server):
        return self.small(server, "write")

    def floor(self, server):
        if server == "nbd-mirror-server":
            return self.rewrite_tmpfs(server)
        sock = self.memory.path("floor.sock")
        sock.unlink(missing_ok=True)
        target = self.full(self.memory)
        with started(self.memory, [FLOOR, "receive", sock, target], "floor.log") as receiver:
            wait_for(sock.exists)
            wall = self.timed([FLOOR, FLOORS[server], sock, self.source])
            receiver.wait()
        return {"CPU-s/GiB": float(receiver.output) / (self.size / GIB), "wall s": wall}


def compare(bench, work, rounds):
    seen = {server: [] for server in SERVERS}
    # One round more than is counted: a virtual machine gives memory that is free for seconds back
    # to its host, and who touches it first waits for it.
    order = list(SERVERS)
    for counted in range(rounds + 1):
        order = order[1:] + order[:1]
        for server in order:
            result = getattr(bench, work.replace("-", "_"))(server)
            if counted:
                seen[server].append(result)
    print(f"{work}:")
    medians = {server: {key: statistics.median(each[key] for each in results)
                        for key in results[0]} for server, results in seen.items()}
    own = medians["nbd-mirror-server"]
    for server, values in medians.items():
        name = f"floor {FLOORS[server]}" if work == "floor" and server in FLOORS else server
        text = "   ".join(f"{key} {value:10.3f} ({own[key] / value if value else float('inf'):5.2f})"
                          for key, value in values.items())
        print(f"  {name:18} {text}", flush=True)


def need(works, options):
    """What these works need."""
    need_built(SERVER)
    need_installed("nbdkit", "qemu-nbd")
    size = options.mib * MIB
    in_memory = size
    if {"small-read", "small-write"} & works:
        need_fio()
    to_memory = {"write-tmpfs", "rewrite-tmpfs", "floor"}
    if (to_memory | {"write-direct", "read"}) & works:
        need_installed("nbdcopy")
    if to_memory & works:
        in_memory += size
    if "floor" in works:
        need_built(FLOOR)
    need_room(options.memory, in_memory)
    if "write-direct" in works:
        need_room(options.disk, size)


def main():
    works = ["write-tmpfs", "rewrite-tmpfs", "write-direct", "read", "small-read", "small-write", "floor"]
    parser = Parser(__doc__)
    parser.add_argument("work", nargs="*", metavar="WORK")
    add_number(parser, "--rounds", 5, "how often each is measured")
    add_number(parser, "--mib", 2048, "size of the disk")
    add_number(parser, "--seconds", 5, "of each run of small requests")
    add_directory(parser, "--memory", "/dev/shm", "on tmpfs")
    add_directory(parser, "--disk", "/var/tmp", "on a disk's file system")
    options = parser.parse_args()
    for work in options.work:
        if work not in works:
            parser.error(f"'{work}' is no WORK; there are {', '.join(works)}")
    chosen = options.work or works
    need(set(chosen), options)
    with workspace(options.memory) as memory, workspace(options.disk) as disk:
        bench = Bench(memory, disk, options.mib * MIB, options.seconds)
        for work in chosen:
            compare(bench, work, options.rounds)


if __name__ == "__main__":
    run_benchmark(main)
