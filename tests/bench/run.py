#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures nbd-mirror beside its peers and prints what it saw; judges nothing.

  tests/bench/run.py copy     raw file to server over a Unix socket, on tmpfs
  tests/bench/run.py sparse   the same data in 100 GiB and in 500 GiB of disk
  tests/bench/run.py mirror   a disk under fio, moved again and again with other seeds

Runs alternate between the programs; medians of --rounds are printed. Machines are noisy: only
ratios within one run mean something.
"""

import argparse
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from harness import (CLIENT, GIB, MIB, Process, SERVER, World, allocated_bytes,  # noqa: E402
                     fio_writer, make_disk, same_content, wait_for)
from measure import cpu_seconds, random_file  # noqa: E402


class Peer:
    """A server with a client: what is measured."""

    def __init__(self, name, server, client):
        self.name, self.server, self.client = name, server, client
        self.wall, self.server_cpu, self.client_cpu = [], [], []

    def run(self, world, source, size):
        target, sock = world.path("target"), world.path("bench.sock")
        for path in (target, sock):
            path.unlink(missing_ok=True)
        make_disk(target, size)
        with Process(self.server(target, sock), world.env, world.path("server.log"),
                     expect=(0, -15)) as server:
            wait_for(sock.exists)
            before, begin = os.times(), time.monotonic()
            subprocess.run([str(each) for each in self.client(source, sock)], check=True,
                           env=world.env, stdout=subprocess.DEVNULL)
            self.wall.append(time.monotonic() - begin)
            after = os.times()
            self.client_cpu.append(after.children_user - before.children_user +
                                   after.children_system - before.children_system)
            self.server_cpu.append(cpu_seconds(server.pid))
        return target

    def line(self, data_gib):
        return (f"{self.name:36} {statistics.median(self.wall):7.2f} s "
                f"{statistics.median(self.server_cpu) / data_gib:8.2f} "
                f"{statistics.median(self.client_cpu) / data_gib:8.2f}")


def ours(target, sock):
    return [SERVER, target, "--listen", f"unix:{sock}", "--control", f"{sock}.control",
            "--log-level", "error"]


def nbdkit(target, sock):
    return ["nbdkit", "-f", "-U", sock, "file", target]


def qemu_nbd(target, sock):
    return ["qemu-nbd", "-t", "-f", "raw", "-k", sock, "-e", "16", "--discard=unmap", target]


def our_copy(source, sock):
    return [CLIENT, "copy", source, f"nbd+unix:///?socket={sock}", "--progress", "none"]


def nbdcopy(source, sock):
    return ["nbdcopy", source, f"nbd+unix:///?socket={sock}"]


def qemu_img(source, sock):
    return ["qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw", source,
            f"nbd+unix:///?socket={sock}"]


def bench_copy(world, rounds, size):
    source = random_file(world.path("source"), size)
    peers = [Peer("nbd-mirror-server <- nbd-mirror copy", ours, our_copy),
             Peer("nbdkit file <- nbdcopy", nbdkit, nbdcopy),
             Peer("nbd-mirror-server <- nbdcopy", ours, nbdcopy),
             Peer("nbdkit file <- nbd-mirror copy", nbdkit, our_copy),
             Peer("qemu-nbd <- qemu-img convert", qemu_nbd, qemu_img)]
    for _ in range(rounds):
        for peer in peers:
            target = peer.run(world, source, size)
    assert same_content(source, target)
    print(f"{'copy of ' + str(size // MIB) + ' MiB, random':36}      wall  server CPU-s/GiB  client")
    for peer in peers:
        print(peer.line(size / GIB))
    ratio = statistics.median(peers[0].wall) / statistics.median(peers[1].wall)
    cpu = statistics.median(peers[2].server_cpu) / statistics.median(peers[1].server_cpu)
    print(f"wall, ours end to end / nbdcopy to nbdkit: {ratio:.2f}")
    print(f"server CPU, ours / nbdkit (nbdcopy as client): {cpu:.2f}")


def bench_sparse(world, rounds, size):
    data = 24
    part = size * 3 // 4 // data // MIB * MIB
    sources = {}
    for gib in (100, 500):
        pieces = [(i * gib * GIB // data, part) for i in range(data)]
        sources[gib] = make_disk(world.path(f"source{gib}"), gib * GIB, pieces)
    peers = {gib: Peer(f"{gib} GiB with {data * part // MIB} MiB of data", ours, our_copy)
             for gib in sources}
    for _ in range(rounds):
        for gib, peer in peers.items():
            target = peer.run(world, sources[gib], gib * GIB)
            growth = allocated_bytes(target) / allocated_bytes(sources[gib])
            assert growth <= 1.01, growth
    for peer in peers.values():
        print(peer.line(data * part / GIB))
    ratio = statistics.median(peers[500].wall) / statistics.median(peers[100].wall)
    print(f"500 GiB / 100 GiB: {ratio:.2f}; blocks at the target / at the source: {growth:.4f}")


def bench_mirror(world, rounds, size):
    downtimes = []
    for seed in range(1, rounds + 1):
        part = World(tempfile.mkdtemp(dir=world.directory))
        source = random_file(part.path("source"), size)
        target = make_disk(part.path("target"), size)
        with part.server(f"d={source}") as a, part.server(f"d={target}") as b, \
                fio_writer(part, a.uri("d"), seconds=300, size=size, seed=seed) as fio:
            wait_for(lambda: a.export("d")["written_bytes"] > 0)
            begin = time.monotonic()
            with part.mirror(a.source("d"), b.uri("d")) as mirror:
                mirror.wait_for_phase("ready", limit=120)
                ready = time.monotonic() - begin
                time.sleep(10)  # it has to stay ready for ten seconds
                phase, running = mirror.phase(), fio.running()
                result = mirror.cutover()
                assert result.returncode == 0, f"seed {seed}: {result.stderr} {mirror.messages()}"
                mirror.wait()
            fio.wait()
        errors = set(re.findall(r"io_u error on file \S+ ([^:]*)", fio.messages() + fio.output))
        equal = same_content(source, target)
        print(f"seed {seed}: ready after {ready:.1f} s, then {phase}, {result.stdout.strip()}, "
              f"identical: {equal}, writer until then: {'well' if running else 'ended'}, "
              f"after it: {', '.join(errors)}", flush=True)
        assert equal and running and errors == {"Cannot send after transport endpoint shutdown"}
        downtimes.append(int(re.search(r"(\d+) ms", result.stdout).group(1)))
        shutil.rmtree(part.directory)
    print(f"{rounds} moves; downtime median {statistics.median(downtimes)} ms, "
          f"longest {max(downtimes)} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["copy", "sparse", "mirror"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=2048, help="size of the disk, or of its data")
    parser.add_argument("--directory", default="/dev/shm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        world = World(directory)
        {"copy": bench_copy, "sparse": bench_sparse, "mirror": bench_mirror}[options.what](
            world, options.rounds, options.mib * MIB)


if __name__ == "__main__":
    main()
