# SPDX-License-Identifier: Apache-2.0
"""Other projects' NBD programs: servers as objects that end with the test, clients as calls."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import threading

import pytest

from harness import Process, accepts, need, wait_for


def run(world, program, *arguments, limit=120):
    """Runs another project's client to its end, whatever that is."""
    return subprocess.run([need(program), *map(str, arguments)], env=world.env,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=limit, cwd=world.directory)


def must(world, program, *arguments, limit=120):
    """Runs another project's client, which must succeed, and returns what it printed."""
    result = run(world, program, *arguments, limit=limit)
    printed = result.stdout + result.stderr
    assert result.returncode == 0, f"{program}: exit {result.returncode}\n{printed}"
    return result.stdout


class Peer(Process):
    """A foreign NBD server on a Unix socket of its own."""

    export = ""

    def __init__(self, world, program, arguments, expect=(0,)):
        world.count += 1
        self.name = f"{program}{world.count}"
        self.socket = world.quick(f"{self.name}.sock")
        super().__init__([need(program), *arguments], world.env, world.quick(f"{self.name}.log"),
                         expect)
        self.wait_until(self.ready, f"{program}'s start")

    def ready(self):
        return accepts(self.socket)

    @property
    def uri(self):
        return f"nbd+unix:///{self.export}?socket={self.socket}"


class Nbdkit(Peer):
    """nbdkit with a plugin and its parameters; `filters` come first to last."""

    def __init__(self, world, plugin, *parameters, filters=(), read_only=False, threads=None):
        where = world.quick(f"nbdkit{world.count + 1}.sock")
        self.pid_file = where.with_suffix(".pid")
        arguments = ["-f", "-U", where, "-P", self.pid_file, *(["-r"] if read_only else []),
                     *([f"--threads={threads}"] if threads else []),
                     *(f"--filter={each}" for each in filters), plugin, *parameters]
        need("nbdkit")
        wanted = [("plugin", plugin), *(("filter", each) for each in filters)]
        for kind, name in wanted:
            if not nbdkit_has(kind, name):
                pytest.skip(f"nbdkit has no {name} {kind} here")
        super().__init__(world, "nbdkit", arguments)

    def ready(self):
        # nbdkit writes it after it listens; a probe would be a client in the plugin's log.
        return self.pid_file.exists() and self.pid_file.read_text().endswith("\n")


def nbdkit_has(kind, name):
    what = [f"--filter={name}", "null"] if kind == "filter" else [name]
    return subprocess.run(["nbdkit", *what, "--dump-plugin"], stdin=subprocess.DEVNULL,
                          capture_output=True).returncode == 0


class QemuNbd(Peer):
    """qemu-nbd with one image."""

    def __init__(self, world, image, image_format="raw", options=()):
        self.export = "disk"
        where = world.quick(f"qemu-nbd{world.count + 1}.sock")
        super().__init__(world, "qemu-nbd",
                         ["--persistent", "--shared=16", f"--socket={where}", "-x", self.export,
                          f"--format={image_format}", "--discard=unmap", *options, image],
                         expect=(0, -15))


class NbdServer:
    """The reference server with one file. In the foreground it serves one client only, so it is a
    daemon, known by its pid file."""

    def __init__(self, world, disk, options=()):
        world.count += 1
        self.socket = world.quick(f"nbd-server{world.count}.sock")
        self.pid_file = self.socket.with_suffix(".pid")
        config = self.socket.with_suffix(".conf")
        lines = ["[generic]", f"unixsock = {self.socket}", "allowlist = true", "[disk]",
                 f"exportname = {disk}", "flush = true", "fua = true", "trim = true", *options]
        config.write_text("\n".join(lines) + "\n")
        must(world, "nbd-server", "-C", config, "-p", self.pid_file)
        self.pid = int(wait_for(lambda: self.pid_file.exists() and self.pid_file.read_text(),
                                what="nbd-server's start"))
        try:
            wait_for(lambda: accepts(self.socket), what="nbd-server's socket")
        except AssertionError:
            self.stop()
            raise

    @property
    def uri(self):
        return f"nbd+unix:///disk?socket={self.socket}"

    def stop(self):
        def gone():
            try:
                stat = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
                return stat.rsplit(")", 1)[1].split()[0] == "Z"
            except FileNotFoundError:
                return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        wait_for(gone, what="nbd-server's end")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Recorder(Nbdkit):
    """nbdkit's eval plugin over a file, one line in its log for each request: a verb and, for those
    that have a range, offset and length."""

    def __init__(self, world, disk, filters=(), read_only=False, before_write="", **scripts):
        world.count += 1
        self.requests_path = world.quick(f"requests{world.count}")
        self.requests_path.touch()
        size = os.path.getsize(disk)
        log = self.requests_path
        record = f"echo {{}} $4 $3 >> '{log}'; "
        direct = "iflag=skip_bytes,count_bytes,fullblock"
        methods = {
            "get_size": f"echo {size}",
            "thread_model": "echo serialize_all_requests",
            "can_write": "exit 0",
            "can_zero": "exit 0",
            "can_flush": "exit 0",
            "pread": record.format("read")
                     + f"dd if='{disk}' bs=64k {direct} skip=$4 count=$3 status=none",
            "pwrite": record.format("write") + before_write
                      + f"dd of='{disk}' bs=64k oflag=seek_bytes conv=notrunc seek=$4 status=none",
            "zero": record.format("zero")
                    + f"fallocate -p -o $4 -l $3 '{disk}'",
            "flush": f"echo flush >> '{log}'",
        }
        methods.update(scripts)
        parameters = [f"{name}={script}" for name, script in methods.items() if script]
        super().__init__(world, "eval", *parameters, filters=filters, read_only=read_only)

    def requests(self, *verbs):
        """(verb, offset, length) of each request so far, in the order they were begun."""
        result = []
        for line in self.requests_path.read_text().splitlines():
            verb, *numbers = line.split()
            if not verbs or verb in verbs:
                result.append((verb, *map(int, numbers)))
        return result


def data_ranges(path):
    """Where a file has data, as the file system tells: (offset, length) of each piece."""
    size = os.path.getsize(path)
    with open(pathlib.Path(path), "rb") as disk:
        at, result = 0, []
        while at < size:
            try:
                data = os.lseek(disk.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(disk.fileno(), data, os.SEEK_HOLE)
            result.append((data, at - data))
        return result


class Relay:
    """Stands before a server and passes on what comes; cut() ends its clients' connections, and lets
    the server do what has arrived there."""

    def __init__(self, world, server):
        self.server = server
        self.path = world.quick("relay.sock")
        self.clients = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                client = self.listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self.server.socket))
                self.clients.append(client)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self.pump, args=ends, daemon=True).start()

    def pump(self, source, sink):
        seen = b""
        with contextlib.suppress(OSError):
            # More than any pattern that is looked for may have come in pieces.
            while (data := source.recv(1 << 20)) and self.passes(seen := seen[-64:] + data):
                sink.sendall(data)
        self.end(source, sink)
        for each in (source, sink):
            with contextlib.suppress(ValueError):
                self.clients.remove(each)

    def passes(self, _):
        """Whether what has come last is passed on; else its connection ends."""
        return True

    def end(self, *sockets):
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.end(*self.clients)
        self.clients.clear()

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.path}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(self.listener)
        self.listener.close()


class CutAtFlush(Relay):
    """Cuts each connection whose client asks for a flush: data arrives at the server, and never
    becomes durable."""

    FLUSH = b"\x25\x60\x95\x13\0\0\0\3"

    def passes(self, seen):
        return self.FLUSH not in seen


class StallAfterFlush(Relay):
    """Passes no write on that comes after a flush, nor what follows it there, until it is told to."""

    WRITE = CutAtFlush.FLUSH[:-1] + b"\1"

    def __init__(self, world, server):
        self.flushed, self.gone_on = False, threading.Event()
        super().__init__(world, server)

    def passes(self, seen):
        if self.flushed and self.WRITE in seen:
            self.gone_on.wait()
        self.flushed = self.flushed or CutAtFlush.FLUSH in seen
        return True

    def __exit__(self, *what):
        self.gone_on.set()
        super().__exit__(*what)


class LateTarget(Recorder):
    """A target that does not do one write, the first at `offset`, until it is told to land it: also
    when its client is gone by then."""

    def __init__(self, world, disk, offset):
        self.stalled, self.landing = world.quick("late"), world.quick("landing")
        stall = (f"if [ $4 = {offset} ] && mkdir '{self.stalled}' 2> /dev/null; "
                 f"then while [ ! -e '{self.landing}' ]; do sleep 0.05; done; fi; ")
        super().__init__(world, disk, before_write=stall, thread_model="echo parallel")
        self.expect = (0, -signal.SIGABRT)  # nbdkit 1.32 may die when its client is gone

    def land(self):
        self.landing.touch()

    def __exit__(self, *what):
        self.land()
        super().__exit__(*what)


class StallingTarget(Recorder):
    """A target that stands still in the middle of a cutover: once it is asked to flush while the
    source's writers are held, it does so until it is told to go on."""

    def __init__(self, world, source, disk=None, export="d"):
        self.stalled, self.gone_on = world.quick("stalled"), world.quick("gone-on")
        ask = f"'{need('curl')}' -s --unix-socket '{source.control}' http://server/v1/exports/{export}"
        stall = (f"touch '{self.stalled}'; "
                 f"while [ ! -e '{self.gone_on}' ]; do sleep 0.05; done")
        super().__init__(world, disk or world.path("target"), flush=(
            f"[ -e '{self.gone_on}' ] || if {ask} | grep -q '\"state\":\"held\"'; "
            f"then {stall}; fi"))
        self.expect = (0, -signal.SIGABRT)

    def wait_for_stall(self):
        wait_for(self.stalled.exists)

    def go_on(self):
        self.gone_on.touch()

    def __exit__(self, *what):
        self.go_on()
        super().__exit__(*what)
