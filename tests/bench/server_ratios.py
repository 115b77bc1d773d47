#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The server beside nbdkit's file plugin and qemu-nbd (--aio=io_uring): prints the table of
docs/performance.md; judges nothing.

  tests/bench/server_ratios.py [--rounds N] [--mib N] [--seconds N] [--disk DIRECTORY] [WORK...]

WORK: write-tmpfs, write-direct, read, small-read, small-write, floor; all of them when none is
given. Servers take turns in each round; what is printed are medians and, behind them, ours divided
by the peer's. Machines are noisy: only ratios within one run mean something.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from harness import BUILD, GIB, MIB, Process, SERVER, World, make_disk, wait_for  # noqa: E402
from measure import cpu_seconds, random_file  # noqa: E402

CONNECTIONS, DEPTH = 4, 32


def ours(target, sock, direct):
    cache = ",cache=direct" if direct else ""
    return [SERVER, f"={target}{cache}", "--listen", f"unix:{sock}", "--control",
            f"{sock}.control", "--log-level", "error"]


def nbdkit(target, sock, _):
    return ["nbdkit", "-f", "-U", sock, "file", target]


def qemu_nbd(target, sock, direct):
    return ["qemu-nbd", "-t", "-f", "raw", "-k", sock, "-e", "16", "--discard=unmap",
            "--aio=io_uring", f"--cache={'none' if direct else 'writeback'}", target]


SERVERS = {"nbd-mirror-server": ours, "nbdkit": nbdkit, "qemu-nbd": qemu_nbd}


def run(arguments):
    return subprocess.run([str(each) for each in arguments], check=True, capture_output=True,
                          text=True).stdout


class Bench:
    def __init__(self, world, options):
        self.world, self.options = world, options
        self.size = options.mib * MIB
        self.source = random_file(world.path("source"), self.size)

    def serve(self, server, target, work, direct=False):
        """`work(uri)` while `server` serves `target`: (its result, the server's CPU seconds)."""
        sock = self.world.path("bench.sock")
        sock.unlink(missing_ok=True)
        with Process(SERVERS[server](target, sock, direct), self.world.env,
                     self.world.path("server.log"), expect=(0, -15)) as process:
            wait_for(sock.exists)
            before = cpu_seconds(process.pid)
            result = work(f"nbd+unix:///?socket={sock}")
            return result, cpu_seconds(process.pid) - before

    def fresh(self, directory):
        target = directory / "target"
        target.unlink(missing_ok=True)
        return make_disk(target, self.size)

    def timed(self, arguments):
        begin = time.monotonic()
        run(arguments)
        return time.monotonic() - begin

    def bulk(self, server, target, arguments, direct=False):
        wall, cpu = self.serve(server, target, lambda uri: self.timed(
            [uri if each == "URI" else each for each in arguments]), direct)
        return {"CPU-s/GiB": cpu / (self.size / GIB), "wall s": wall}

    def write_tmpfs(self, server):
        return self.bulk(server, self.fresh(self.world.directory), ["nbdcopy", self.source, "URI"])

    def write_direct(self, server):
        return self.bulk(server, self.fresh(self.options.disk),
                         ["nbdcopy", "--flush", self.source, "URI"], direct=True)

    def read(self, server):
        return self.bulk(server, self.source, ["nbdcopy", "URI", "null:"])

    def small(self, server, kind):
        def work(uri):
            report = self.world.path("fio.json")
            run([
                "fio", "--name=small", "--ioengine=nbd", f"--uri={uri}", f"--rw=rand{kind}",
                "--bs=4k", f"--iodepth={DEPTH}", f"--numjobs={CONNECTIONS}", "--group_reporting",
                "--time_based", f"--runtime={self.options.seconds}", f"--size={self.size}",
                "--norandommap", "--randrepeat=0", "--output-format=json", f"--output={report}"])
            text = report.read_text()  # warnings may stand before it
            return json.loads(text[text.index("{"):])["jobs"][0][kind]
        seen, cpu = self.serve(server, self.source, work)
        return {"CPU us/request": 1e6 * cpu / seen["total_ios"], "IOPS": seen["iops"],
                "p99 us": seen["clat_ns"]["percentile"]["99.000000"] / 1000}

    def small_read(self, server):
        return self.small(server, "read")

    def small_write(self, server):
        return self.small(server, "write")

    def floor(self, server):
        if server == "nbd-mirror-server":
            return self.write_tmpfs(server)
        if server != "nbdkit":  # once is enough
            return None
        sock = self.world.path("floor.sock")
        sock.unlink(missing_ok=True)
        program = BUILD / "tests/bench/floor"
        target = self.fresh(self.world.directory)
        with Process([program, "receive", sock, target], self.world.env,
                     self.world.path("floor.log"), expect=(0,)) as receiver:
            wait_for(sock.exists)
            wall = self.timed([program, "send", sock, self.source])
            receiver.wait()
        return {"CPU-s/GiB": float(receiver.output) / (self.size / GIB), "wall s": wall}


def compare(bench, work, rounds):
    seen = {server: [] for server in SERVERS}
    # One round more than is counted: a virtual machine gives memory that is free for seconds back
    # to its host, and who touches it first waits for it.
    for counted in range(rounds + 1):
        for server, results in seen.items():
            result = getattr(bench, work.replace("-", "_"))(server)
            if counted and result is not None:
                results.append(result)
    print(f"{work}:")
    medians = {server: {key: statistics.median(each[key] for each in results)
                        for key in results[0]} for server, results in seen.items() if results}
    own = medians["nbd-mirror-server"]
    for server, values in medians.items():
        name = "floor" if work == "floor" and server != "nbd-mirror-server" else server
        text = "   ".join(f"{key} {value:10.3f} ({own[key] / value:5.2f})"
                          for key, value in values.items())
        print(f"  {name:18} {text}", flush=True)


def main():
    works = ["write-tmpfs", "write-direct", "read", "small-read", "small-write", "floor"]
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", nargs="*", choices=[*works, []], metavar="WORK")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=2048, help="size of the disk")
    parser.add_argument("--seconds", type=int, default=5, help="of each run of small requests")
    parser.add_argument("--memory", default="/dev/shm", help="a directory on tmpfs")
    parser.add_argument("--disk", default="/var/tmp", help="a directory on a disk's file system")
    options = parser.parse_args()
    memory = tempfile.mkdtemp(dir=options.memory)
    options.disk = pathlib.Path(tempfile.mkdtemp(dir=options.disk))
    try:
        bench = Bench(World(memory), options)
        for work in options.work or works:
            compare(bench, work, options.rounds)
    finally:
        shutil.rmtree(memory)
        shutil.rmtree(options.disk)


if __name__ == "__main__":
    main()
