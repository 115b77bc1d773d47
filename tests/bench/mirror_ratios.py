#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Moves a disk under a writer, with nbd-mirror and with QEMU's blockdev-mirror, and prints both and
their ratios; judges nothing.

  uniform   16 KiB random writes, evenly over the disk
  zipf      the same, some blocks much more often than others
  slow      the target takes 60 MB/s, and the writer wants 100: whether the job ever gets ready

The source is nbd-mirror-server or qemu-storage-daemon, with fio as its client; the target of both is
nbd-mirror-server (`slow`: nbdkit with its rate filter), over Unix sockets, disks on tmpfs. Programs
take turns; medians of --rounds. `sent` is what the target was told to write, `ready` the time until
the job says that it could be cut over, `stopped` the longest that a write took that ended after the
cutover was asked for.
"""

import contextlib
import json
import pathlib
import re
import signal
import socket
import statistics
import time

from measure import (Failed, Parser, add_directory, add_number, cpu_seconds, have_memory,
                     need_built, need_fio, need_installed, need_room, random_file, run_benchmark,
                     serving, started, workspace)
from harness import CLIENT, GIB, MIB, SERVER, ask, make_disk, wait_for

BLOCK, DEPTH, RATE = "16k", 16, "100m"
SLOW_BITS_PER_S = 60_000_000 * 8
DISTRIBUTIONS = {"uniform": "random", "zipf": "zipf:1.2", "slow": "random"}


class Qmp:
    """A QMP monitor."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.rest = b""
        self.events = []
        self.message()
        self.ask("qmp_capabilities")

    def message(self, limit=300):
        """The next one; TimeoutError when none comes in time."""
        end = time.monotonic() + limit
        while b"\n" not in self.rest:
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            more = self.socket.recv(65536)
            if not more:
                raise Failed("qemu-storage-daemon has ended")
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self.message()
            if "error" in answer:
                raise Failed(f"qemu-storage-daemon: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def wait_for(self, event, limit):
        """Whether it came in time."""
        end = time.monotonic() + limit
        while True:
            if any(each.get("event") == event for each in self.events):
                self.events.clear()
                return True
            try:
                self.events.append(self.message(end - time.monotonic()))
            except TimeoutError:
                return False


class Ours:
    name = "nbd-mirror"

    def __init__(self, world, source, target):
        self.world, self.source, self.target = world, source, target
        self.sock = world.path("source.sock")

    def server(self):
        return [SERVER, f"d={self.source}", "--listen", f"unix:{self.sock}", "--control",
                self.world.path("source.control"), "--log-level", "error"]

    def move(self, limit, note):
        """Seconds until it was ready, or None; then it is cut over. `note` gets the job's process
        at the former moment."""
        world = self.world
        begin = time.monotonic()
        with started(world, [CLIENT, "mirror", f"server:d@{world.path('source.control')}",
                             self.target, "--job", "bench", "--handover", "release", "--progress",
                             "none", "--max-downtime", "500"], "mirror.log",
                     expect=(0, 4)) as mirror:
            # Not by a process for each question: there are two CPUs.
            control = pathlib.Path(world.env["NBD_MIRROR_RUNTIME_DIR"]) / "jobs" / "bench.sock"

            def phase():
                with contextlib.suppress(OSError):  # it is not there yet
                    return ask(control, "GET", "/v1/job")[1]["phase"]
            while phase() != "ready":
                if not mirror.running() or time.monotonic() - begin > limit:
                    world.client("cancel", "bench")
                    mirror.wait()
                    return None, None
                time.sleep(0.05)
            ready = time.monotonic() - begin
            note(mirror)
            cutover = time.time()
            status, answer = ask(control, "POST", "/v1/job/cutover", timeout=120)
            if status != 200:
                raise Failed(answer["error"])
            mirror.wait()
        return ready, cutover


class Qemu(Ours):
    name = "blockdev-mirror"

    def server(self):
        return ["qemu-storage-daemon",
                "--blockdev", f"driver=file,filename={self.source},node-name=source,aio=io_uring",
                "--nbd-server", f"addr.type=unix,addr.path={self.sock},max-connections=16",
                "--export", "type=nbd,id=export,node-name=source,name=d,writable=on",
                "--chardev", f"socket,path={self.world.path('qmp')},server=on,wait=off,id=qmp",
                "--monitor", "chardev=qmp"]

    def move(self, limit, note):
        wait_for(self.world.path("qmp").exists)
        qmp = Qmp(self.world.path("qmp"))
        path, name = re.fullmatch(r"nbd\+unix:///(.*)\?socket=(.*)", self.target).group(2, 1)
        begin = time.monotonic()
        qmp.ask("blockdev-add", driver="nbd", **{"node-name": "target", "export": name},
                server={"type": "unix", "path": path})
        qmp.ask("blockdev-mirror", **{"job-id": "bench"}, device="source", target="target",
                sync="full")
        if not qmp.wait_for("BLOCK_JOB_READY", limit):
            qmp.ask("block-job-cancel", device="bench", force=True)
            return None, None
        ready = time.monotonic() - begin
        note(None)
        cutover = time.time()
        qmp.ask("block-job-complete", device="bench")
        if not qmp.wait_for("BLOCK_JOB_COMPLETED", 120):
            raise Failed("qemu-storage-daemon: the job does not complete")
        return ready, cutover


def writer(world, work, size, sock):
    return ["fio", "--name=writer", "--thread", "--ioengine=nbd",
            f"--uri=nbd+unix:///d?socket={sock}", "--rw=randwrite", f"--bs={BLOCK}", f"--iodepth={DEPTH}", f"--rate={RATE}",
            "--time_based", "--runtime=900", f"--size={size}", "--randseed=7",
            f"--random_distribution={DISTRIBUTIONS[work]}", "--norandommap", "--refill_buffers",
            f"--write_lat_log={world.path('fio')}", "--log_unix_epoch=1", "--output-format=json",
            f"--output={world.path('fio.json')}"]


def latencies(world):
    """(milliseconds of the clock at its end, milliseconds) of each write."""
    log = next(world.directory.glob("fio_clat*.log"))
    for line in log.read_text().splitlines():
        at, took = line.split(",")[:2]
        yield int(at), int(took) / 1e6


def measure(kind, work, where, size, limit):
    with workspace(where) as world:
        source = random_file(world.path("source"), size)
        target = make_disk(world.path("target"), size)
        sock = world.path("target.sock")
        control = world.path("target.control")
        if work == "slow":
            target_server = ["nbdkit", "-f", "-U", sock, "--filter=rate", "file", target,
                             f"rate={SLOW_BITS_PER_S}"]
            uri = f"nbd+unix:///?socket={sock}"
        else:
            target_server = [SERVER, f"d={target}", "--listen", f"unix:{sock}", "--control",
                             control, "--log-level", "error"]
            uri = f"nbd+unix:///d?socket={sock}"
        mover = kind(world, source, uri)
        with (serving(world, target_server, sock) as target_process,
              serving(world, mover.server(), mover.sock) as source_process):
            with started(world, writer(world, work, size, mover.sock), "fio.log",
                         expect=(0, 1, 128, 129, -2)) as fio:
                time.sleep(1)
                have_memory(world, size)
                programs = {"source": source_process, "target": target_process, "writer": fio}
                before = {name: cpu_seconds(each.pid) for name, each in programs.items()}
                cpu = {}

                def note(mirror):
                    for name, each in programs.items():
                        cpu[name] = cpu_seconds(each.pid) - before[name]
                    if mirror:
                        cpu["mirror"] = cpu_seconds(mirror.pid)

                ready, cutover = mover.move(limit, note)
                time.sleep(1)
                sent = None
                if work != "slow":
                    sent = ask(control, "GET", "/v1/exports/d")[1]["written_bytes"]
                fio.process.send_signal(signal.SIGINT)
                fio.wait()
        seen = list(latencies(world))
        result = {"ready s": ready, "sent GiB": sent / GIB if sent is not None else None}
        if cutover is not None:
            result["stopped ms"] = max(took for at, took in seen if at >= 1000 * cutover)
        ordered = sorted(took for _, took in seen)
        result["write p99 ms"] = ordered[int(0.99 * len(ordered))]
        result |= {f"{name} CPU s": seconds for name, seconds in cpu.items()}
        return result


def show(value):
    return "never" if value is None else f"{value:.2f}"


def compare(work, where, rounds, size, limit):
    seen = {kind: [] for kind in (Ours, Qemu)}
    for _ in range(rounds):
        for kind, results in seen.items():
            results.append(measure(kind, work, where, size, limit))
    print(f"{work}: {BLOCK} random writes, {RATE}B/s wanted, {size // MIB} MiB")
    medians = {}
    for kind, results in seen.items():
        medians[kind] = {}
        for key in results[0]:
            values = [each.get(key) for each in results]
            known = None if None in values else statistics.median(values)
            medians[kind][key] = known
    for kind, values in medians.items():
        parts = []
        for key, value in values.items():
            other = medians[Qemu].get(key)
            ratio = f" ({value / other:.2f})" if kind is Ours and value and other else ""
            parts.append(f"{key} {show(value)}{ratio}")
        print(f"  {kind.name:16} " + "   ".join(parts), flush=True)


def main():
    works = list(DISTRIBUTIONS)
    parser = Parser(__doc__)
    parser.add_argument("work", nargs="*", metavar="WORK")
    add_number(parser, "--rounds", 5, "how often each is measured")
    add_number(parser, "--mib", 2048, "size of the disk")
    add_number(parser, "--limit", 180, "seconds until a job counts as never ready")
    add_directory(parser, "--directory", "/dev/shm", "where the disks are")
    options = parser.parse_args()
    unknown = set(options.work) - set(works)
    if unknown:
        parser.error(f"'{unknown.pop()}' is none of {', '.join(works)}")
    need_built(SERVER, CLIENT)
    need_fio()
    need_installed("qemu-storage-daemon", "nbdkit")
    need_room(options.directory, 2 * options.mib * MIB)
    for work in options.work or works:
        compare(work, options.directory, options.rounds, options.mib * MIB, options.limit)


if __name__ == "__main__":
    run_benchmark(main)
