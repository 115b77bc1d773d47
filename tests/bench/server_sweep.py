#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How the server's throughput and CPU go with connections, request size, depth, transport and
storage: one factor at a time, fio's NBD engine as the client. Writes tab-separated lines, from which
docs/plots.gnuplot draws; judges nothing.

  tests/bench/server_sweep.py [--rounds N] [--seconds N] [--disk DIRECTORY] > docs/server_sweep.tsv
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from harness import KIB, MIB, World, make_disk  # noqa: E402
from measure import cpu_seconds  # noqa: E402

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
    memory = point["storage"] == "tmpfs"
    world = World(tempfile.mkdtemp(dir=options.memory if memory else options.disk))
    try:
        disk = make_disk(world.path("disk"), DISK_BYTES, [(0, DISK_BYTES)])
        cache = "direct" if point["storage"].endswith("direct") else "writeback"
        with world.server(f"d={disk},cache={cache}", options=["--log-level", "info"]) as server:
            report = world.path("fio.json")
            before = cpu_seconds(server.pid)
            subprocess.run([
                "fio", "--name=sweep", "--ioengine=nbd",
                f"--uri={server.uri('d', tcp=point['transport'] == 'tcp')}", f"--rw=rand{kind}",
                f"--bs={point['bytes']}", f"--iodepth={point['depth']}",
                f"--numjobs={point['connections']}", "--group_reporting", "--time_based",
                f"--runtime={options.seconds}", f"--size={DISK_BYTES}", "--norandommap",
                "--output-format=json", f"--output={report}"], check=True, capture_output=True)
            cpu = cpu_seconds(server.pid) - before
            text = report.read_text()  # warnings may stand before it
            seen = json.loads(text[text.index("{"):])["jobs"][0][kind]
            return (seen["iops"], seen["bw_bytes"] / MIB, 1e6 * cpu / seen["total_ios"],
                    cpu / (seen["io_bytes"] / (1024 * MIB)),
                    seen["clat_ns"]["percentile"]["99.000000"] / 1000)
    finally:
        shutil.rmtree(world.directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--memory", default="/dev/shm", help="a directory on tmpfs")
    parser.add_argument("--disk", default="/var/tmp", help="a directory on a disk's ext4")
    options = parser.parse_args()
    print("factor", *SMALL, "kind", "IOPS", "MiB/s", "CPU-us/request", "CPU-s/GiB", "p99-us",
          sep="\t")
    for factor, point in points():
        for kind in ("read", "write"):
            results = [measure(options, point, kind) for _ in range(options.rounds)]
            medians = [statistics.median(each) for each in zip(*results)]
            print(factor, *point.values(), kind, *(f"{each:.2f}" for each in medians), sep="\t",
                  flush=True)


if __name__ == "__main__":
    main()
