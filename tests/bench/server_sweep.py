#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures how nbd-mirror-server's throughput and CPU go with connections, request size, depth,
transport and storage: one factor at a time, fio's NBD engine as the client, against nothing else.
Writes tab-separated lines, from which docs/plots.gnuplot draws; judges nothing.

  tests/bench/server_sweep.py > docs/server_sweep.tsv

58 points: about ten minutes with the defaults, on two cores.
"""

import statistics

from measure import (Parser, add_directory, add_number, cpu_seconds, fio, need_built, need_fio,
                     need_room, p99_us, run_benchmark, workspace)
from harness import GIB, KIB, MIB, SERVER, make_disk

DISK_BYTES = 512 * MIB
SMALL = {"connections": 4, "bytes": 4 * KIB, "depth": 32, "transport": "unix", "storage": "tmpfs"}
LARGE = {"connections": 4, "bytes": 256 * KIB, "depth": 8, "transport": "unix", "storage": "tmpfs"}


def points():
    for base in (SMALL, LARGE):
        for connections in (1, 2, 4, 8):
            yield "connections", dict(base, connections=connections)
        for transport in ("unix", "tcp"):
            yield "transport", dict(base, transport=transport)
        for storage in ("tmpfs", "ext4", "ext4-direct"):
            yield "storage", dict(base, storage=storage)
    for size in (4, 16, 64, 256, 1024, 4096, 32768):
        yield "bytes", dict(LARGE, bytes=size * KIB, connections=2, depth=2 if size > 4096 else 8)
    for depth in (1, 4, 16, 64):
        yield "depth", dict(SMALL, depth=depth)


def measure(options, point, kind):
    with workspace(options.memory if point["storage"] == "tmpfs" else options.disk) as world:
        disk = make_disk(world.path("disk"), DISK_BYTES, [(0, DISK_BYTES)])
        cache = "direct" if point["storage"].endswith("direct") else "writeback"
        with world.server(f"d={disk},cache={cache}", options=["--log-level", "info"]) as server:
            before = cpu_seconds(server.pid)
            seen = fio(world, server.uri("d", tcp=point["transport"] == "tcp"), kind,
                       bs=point["bytes"], iodepth=point["depth"], numjobs=point["connections"],
                       size=DISK_BYTES, runtime=options.seconds)
            cpu = cpu_seconds(server.pid) - before
    return (seen["iops"], seen["bw_bytes"] / MIB, 1e6 * cpu / seen["total_ios"],
            cpu / (seen["io_bytes"] / GIB), p99_us(seen))


def main():
    parser = Parser(__doc__)
    add_number(parser, "--rounds", 3, "how often each point is measured")
    add_number(parser, "--seconds", 2, "of each run")
    add_directory(parser, "--memory", "/dev/shm", "on tmpfs")
    add_directory(parser, "--disk", "/var/tmp", "on a disk's ext4")
    options = parser.parse_args()
    need_built(SERVER)
    need_fio()
    for where in (options.memory, options.disk):
        need_room(where, DISK_BYTES)
    print("factor", *SMALL, "kind", "IOPS", "MiB/s", "CPU-us/request", "CPU-s/GiB", "p99-us",
          sep="\t")
    for factor, point in points():
        for kind in ("read", "write"):
            results = [measure(options, point, kind) for _ in range(options.rounds)]
            medians = [statistics.median(each) for each in zip(*results)]
            print(factor, *point.values(), kind, *(f"{each:.2f}" for each in medians), sep="\t",
                  flush=True)


if __name__ == "__main__":
    run_benchmark(main)
